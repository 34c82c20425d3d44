//! The cache of images: what is compiled is kept, and nothing but what is whole is read. 16 processes share one folder.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{ALL, nvrtc, reverse, target};
use mngc_kernels_gen::Source;
use mngc_kernels_gen::cache::{Cache, Images};
use mngc_kernels_gen::nvrtc::{Nvrtc, Options};

fn sources() -> Vec<Source> {
    (0..4).map(reverse).collect()
}

fn images(cache: &Cache, nvrtc: &Nvrtc) -> Images {
    cache.images(nvrtc, &sources(), target("sm_80"), &ALL, 2, &|_| ()).expect("they compile")
}

/// The files of a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn what_is_compiled_is_kept() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("not/yet/there");
    let cold = images(&Cache::at(&folder), &nvrtc);
    assert_eq!(cold.compiled, 4);
    assert_eq!(files(&folder).len(), 4);
    assert_eq!(cold.images, nvrtc.compile_all(&sources(), target("sm_80"), &ALL, 2, &|_| ()).expect("they compile"));

    let warm = images(&Cache::at(&folder), &nvrtc);
    assert_eq!((warm.compiled, &warm.images), (0, &cold.images));

    let cache = Cache::at(&folder);
    let ptx_only = Options { ptx_only: true };
    let ptx = cache.images(&nvrtc, &sources(), target("sm_80"), &ptx_only, 2, &|_| ()).expect("they compile");
    assert_eq!(ptx.compiled, 4);
    assert!(ptx.images.iter().all(|image| image.cubin.is_none()));
    assert_eq!(cache.fault(), None);

    assert_eq!(images(&Cache::none(), &nvrtc), Images { images: cold.images, compiled: 4 });
}

#[test]
fn a_file_that_is_not_whole_is_replaced() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::at(folder.path());
    let cold = images(&cache, &nvrtc);
    let kept = files(folder.path());
    let contents: Vec<Vec<u8>> = kept.iter().map(|path| std::fs::read(path).expect("a file")).collect();

    // Empty, cut, a changed byte, and the file of another kernel.
    std::fs::write(&kept[0], "").expect("written");
    std::fs::write(&kept[1], &contents[1][..contents[1].len() / 2]).expect("written");
    let mut changed = contents[2].clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&kept[2], changed).expect("written");
    std::fs::write(&kept[3], &contents[0]).expect("written");

    assert_eq!(images(&cache, &nvrtc), Images { images: cold.images.clone(), compiled: 4 });
    assert_eq!(files(folder.path()), kept);
    for (path, contents) in kept.iter().zip(&contents) {
        assert_eq!(&std::fs::read(path).expect("a file"), contents);
    }
    assert_eq!(images(&cache, &nvrtc), Images { images: cold.images, compiled: 0 });
    assert_eq!(cache.fault(), None);
}

#[test]
fn a_folder_that_cannot_be_written_keeps_nothing() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    // Below a file there is no folder, not even for root, whom permissions do not stop.
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let cache = Cache::at(&file.join("kernels"));
    for _ in 0..2 {
        assert_eq!(images(&cache, &nvrtc).compiled, 4);
        let fault = cache.fault().expect("a reason");
        assert!(fault.contains(file.to_str().expect("a path")), "{fault}");
    }
    // A folder in the place of a file cannot be replaced.
    let cache = Cache::at(folder.path());
    images(&cache, &nvrtc);
    let taken = files(folder.path()).into_iter().find(|path| *path != file).expect("a kept image");
    std::fs::remove_file(&taken).and_then(|()| std::fs::create_dir(&taken)).expect("a folder in its place");
    assert_eq!(images(&cache, &nvrtc).compiled, 1);
    assert!(cache.fault().is_some());
}

#[cfg(unix)]
#[test]
fn a_folder_without_permission_is_read_alone() {
    use std::os::unix::fs::PermissionsExt;
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let cold = images(&Cache::at(folder.path()), &nvrtc);
    std::fs::remove_file(&files(folder.path())[0]).expect("removed");
    let allow = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode));
    allow(0o555).expect("permissions");
    let cache = Cache::at(folder.path());
    let again = images(&cache, &nvrtc);
    // Permissions do not stop root.
    let stopped = std::fs::write(folder.path().join("try"), "").is_err();
    allow(0o755).expect("permissions");
    assert_eq!(again, Images { images: cold.images, compiled: 1 });
    assert_eq!(cache.fault().is_some(), stopped);
}

/// Names the folder to a process that [`processes_that_start_cold_at_once_agree`] starts.
const FOLDER: &str = "MNGC_TEST_CACHE";

#[test]
fn processes_that_start_cold_at_once_agree() {
    const PROCESSES: usize = 16;
    let Some(nvrtc) = nvrtc() else { return };
    if let Some(folder) = std::env::var_os(FOLDER) {
        return one_of_many(Path::new(&folder), &nvrtc);
    }
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("kernels");
    let this = std::env::current_exe().expect("this program");
    let start = |_| {
        Command::new(&this)
            .args(["--exact", "processes_that_start_cold_at_once_agree"])
            .env(FOLDER, &folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    };
    let processes: Vec<_> = (0..PROCESSES).map(start).collect();
    std::fs::write(folder.with_extension("go"), "").expect("written");
    for process in processes {
        let output = process.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    // Whole images and nothing else.
    assert_eq!(files(&folder).len(), 4);
    let hashes: Vec<Vec<u8>> = files(parent.path())
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension != "go"))
        .map(|path| std::fs::read(path).expect("a hash"))
        .collect();
    assert_eq!(hashes.len(), PROCESSES);
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
}

/// Waits until all processes are there; leaves a hash of its images beside the folder.
fn one_of_many(folder: &Path, nvrtc: &Nvrtc) {
    while !folder.with_extension("go").exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let cache = Cache::at(folder);
    let Images { images: all, .. } = images(&cache, nvrtc);
    assert_eq!(cache.fault(), None);
    assert_eq!(images(&cache, nvrtc), Images { images: all.clone(), compiled: 0 });
    let hash = blake3::hash(format!("{all:?}").as_bytes()).to_hex();
    std::fs::write(folder.with_extension(std::process::id().to_string()), hash.as_bytes()).expect("written");
}
