//! Token shards: one stream over several files, and everything that can be wrong with a file.

mod common;

use common::{Data, VOCAB, shard, tokens};
use mngc_trainer::data::batch;
use mngc_trainer::error::{Error, ShardFault};
use mngc_trainer::{Plan, Shards};
use proptest::prelude::*;

/// Opens one file of these bytes.
fn open(bytes: &[u8]) -> Result<Shards, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shard.bin");
    std::fs::write(&path, bytes).expect("a file");
    Shards::open("training", path.to_str().expect("a UTF-8 path"))
}

fn fault(bytes: &[u8]) -> ShardFault {
    match open(bytes) {
        Err(Error::Shard { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

/// A good shard with a word of the header replaced.
fn with_word(at: usize, word: i32) -> Vec<u8> {
    let mut bytes = shard(&[1, 2, 3]);
    bytes[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
    bytes
}

#[test]
fn a_broken_shard_is_refused_with_its_fault() {
    assert_eq!(fault(&[]), ShardFault::Short(0));
    assert_eq!(fault(&shard(&[])[..1023]), ShardFault::Short(1023));
    assert_eq!(fault(&with_word(0, 20240521)), ShardFault::Magic(20240521));
    assert_eq!(fault(&with_word(1, 2)), ShardFault::Version(2));
    assert_eq!(fault(&with_word(2, -1)), ShardFault::Negative(-1));
    assert_eq!(fault(&with_word(2, 4)), ShardFault::Count { header: 4, found: 3 });
    assert_eq!(fault(&with_word(2, i32::MAX)), ShardFault::Count { header: i32::MAX as u64, found: 3 });
    let whole = shard(&[1, 2, 3]);
    assert_eq!(fault(&whole[..whole.len() - 1]), ShardFault::OddBytes(5));
    assert_eq!(fault(&[&whole[..], &[0, 0]].concat()), ShardFault::Count { header: 3, found: 4 });
}

#[test]
fn a_big_endian_shard_is_refused() {
    let mut bytes = shard(&[1, 2, 3]);
    bytes[..1024].as_chunks_mut::<4>().0.iter_mut().for_each(|word| word.reverse());
    assert_eq!(fault(&bytes), ShardFault::Magic(20240520i32.swap_bytes()));
}

#[test]
fn a_folder_is_no_shard_and_no_file_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("a.bin")).expect("a folder");
    let pattern = |name: &str| folder.path().join(name).to_str().expect("a UTF-8 path").to_string();
    let open = |name: &str| Shards::open("training", &pattern(name));
    assert!(matches!(open("*.bin"), Err(Error::Shard { fault: ShardFault::NotAFile, .. })));
    assert!(matches!(open("b*.bin"), Err(Error::NoShards { .. })));
    assert!(matches!(open("b.bin"), Err(Error::NoShards { .. })));
    assert!(matches!(open("***"), Err(Error::Pattern { .. })));
}

#[test]
fn a_file_with_a_bracket_in_its_name_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a[1].bin");
    std::fs::write(&path, shard(&[5, 6])).expect("a file");
    let shards = Shards::open("training", path.to_str().expect("a UTF-8 path")).expect("a shard");
    assert_eq!(shards.read(0..9), [5, 6]);
}

#[test]
fn the_stream_goes_over_files_in_the_order_of_their_names() {
    let data = Data::new(&[4, 0, 9, 1, 30]);
    let shards = Shards::open("training", data.path("train_*.bin").to_str().expect("a UTF-8 path")).expect("shards");
    assert_eq!(shards.tokens(), 44);
    assert_eq!(shards.read(0..44), data.train);
    assert_eq!(shards.read(3..14), data.train[3..14]);
    assert_eq!(shards.read(40..100), data.train[40..]);
    assert_eq!(shards.read(44..50), [0u16; 0]);
}

#[test]
fn targets_are_the_tokens_one_further_on() {
    let data = Data::new(&[5, 20]);
    let shards = Shards::open("training", data.path("train_*.bin").to_str().expect("a UTF-8 path")).expect("shards");
    let cut = batch(&shards, 1, 2, 4).expect("a batch");
    let ints = |from: usize| data.train[from..from + 8].iter().map(|&t| i32::from(t)).collect::<Vec<_>>();
    assert_eq!(cut.tokens.sizes(), [2, 4]);
    assert_eq!(cut.tokens.as_ints(), Some(&ints(4)[..]));
    assert_eq!(cut.targets.as_ints(), Some(&ints(5)[..]));
    // Sequence 5 reads tokens 20..=24, and 24 is the last.
    assert!(batch(&shards, 5, 1, 4).is_ok());
    assert!(batch(&shards, 6, 1, 4).is_err());
}

#[test]
fn a_run_needs_one_token_more_than_it_trains_on_and_no_more() {
    let program = common::bigram();
    let enough = Data::new(&[30, 31]);
    Plan::new(&program, &enough.options()).expect("61 tokens are enough for 5 steps of 12");
    let short = Data::new(&[30, 30]);
    match Plan::new(&program, &short.options()) {
        Err(Error::TooFewTokens { what: "training", found: 60, needed: 61, .. }) => {}
        other => panic!("{other:?}"),
    }
    let fewer = mngc_trainer::Options { steps: Some(4), ..short.options() };
    Plan::new(&program, &fewer).expect("4 steps need 49 tokens");
    std::fs::write(short.path("val_0.bin"), shard(&short.val[..12])).expect("a shard");
    match Plan::new(&program, &fewer) {
        Err(Error::TooFewTokens { what: "validation", found: 12, needed: 13, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_outside_the_vocabulary_is_found_before_the_run_starts_and_only_where_it_is_read() {
    let program = common::bigram();
    let data = Data::new(&[30, 32]);
    let plant = |at: usize| {
        let mut part = data.train[30..].to_vec();
        part[at] = VOCAB as u16;
        std::fs::write(data.path("train_1.bin"), shard(&part)).expect("a shard");
        Plan::new(&program, &data.options()).map(|_| ())
    };
    for at in [0, 17, 30] {
        match plant(at) {
            Err(Error::Shard { path, fault }) => {
                assert!(path.ends_with("train_1.bin"));
                assert_eq!(fault, ShardFault::Token { index: at as u64, token: 7, vocab: 7 });
            }
            other => panic!("{other:?}"),
        }
    }
    plant(31).expect("token 61 is not read");
}

proptest! {
    #[test]
    fn any_range_of_any_split_is_that_range(cuts in prop::collection::vec(0usize..12, 1..6), a in 0u64..70, b in 0u64..70) {
        let data = Data::new(&cuts);
        let shards = Shards::open("training", data.path("train_*.bin").to_str().expect("a UTF-8 path")).expect("shards");
        let all = data.train.len();
        let cut = |x: u64| (x as usize).min(all);
        let expected = data.train.get(cut(a)..cut(b)).unwrap_or_default();
        prop_assert_eq!(shards.read(a..b), expected);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..1200),
        words in prop::collection::vec((0usize..3, prop::sample::select(vec![20240520, 1, 0, -1, i32::MIN, 88])), 0..4),
    ) {
        for (at, word) in words {
            if let Some(place) = bytes.get_mut(4 * at..4 * at + 4) {
                place.copy_from_slice(&i32::to_le_bytes(word));
            }
        }
        if let Ok(shards) = open(&bytes) {
            prop_assert_eq!(shards.tokens() as usize, (bytes.len() - 1024) / 2);
        }
    }
}

#[test]
fn made_up_tokens_are_all_of_the_vocabulary() {
    let seen: std::collections::BTreeSet<u16> = tokens(60, 1).into_iter().collect();
    assert_eq!(seen.len(), VOCAB);
}
