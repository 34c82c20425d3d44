"""Encodes the documents of a .jsonl file to token shards with tiktoken, by the rule of Modded-NanoGPT's data/fineweb.py.

Prints one JSON object: MB of text a second, without imports and without making the tokenizer.
"""
import argparse
import json
import multiprocessing
import pathlib
import time

import numpy as np
import tiktoken
from tiktoken.load import load_tiktoken_bpe

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
BATCH = 1024  # documents that threads are given at a time


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--vocabulary", required=True, help="r50k_base.tiktoken")
    parser.add_argument("--shard-tokens", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--how", choices=["processes", "threads"], required=True)
    return parser.parse_args()


args = parse()
encoding = tiktoken.Encoding(
    "gpt2", pat_str=PATTERN, mergeable_ranks=load_tiktoken_bpe(args.vocabulary), special_tokens={"<|endoftext|>": 50256}
)
eot = encoding.eot_token


def tokenize(document):
    tokens = [eot]
    tokens.extend(encoding.encode_ordinary(document["text"]))
    return np.array(tokens, dtype=np.uint16)


def documents():
    with open(args.input, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def batches():
    batch = []
    for document in documents():
        batch.append(document["text"])
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def encoded():
    if args.how == "processes":
        with multiprocessing.Pool(args.workers) as pool:
            yield from pool.imap(tokenize, documents(), chunksize=16)
    else:
        for batch in batches():
            for tokens in encoding.encode_ordinary_batch(batch, num_threads=args.workers):
                yield np.array([eot] + tokens, dtype=np.uint16)


def write(path, tokens):
    header = np.zeros(256, dtype=np.int32)
    header[:3] = 20240520, 1, len(tokens)
    with open(path, "wb") as file:
        file.write(header.tobytes())
        file.write(tokens.tobytes())


def main():
    args.folder.mkdir(parents=True)
    start = time.perf_counter()
    shard, index, count = np.empty((args.shard_tokens,), dtype=np.uint16), 0, 0

    def path():
        return args.folder / f"bench_{'val' if index == 0 else 'train'}_{index:06d}.bin"

    for tokens in encoded():
        while count + len(tokens) >= args.shard_tokens:
            rest = args.shard_tokens - count
            shard[count:] = tokens[:rest]
            write(path(), shard)
            index, count, tokens = index + 1, 0, tokens[rest:]
        shard[count : count + len(tokens)] = tokens
        count += len(tokens)
    if count:
        write(path(), shard[:count])
    seconds = time.perf_counter() - start
    size = sum(len(document["text"].encode()) for document in documents())
    print(json.dumps({"mb_per_second": size / 1e6 / seconds, "tiktoken": tiktoken.__version__}))


main()
