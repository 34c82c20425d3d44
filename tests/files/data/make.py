"""Makes the files of this folder: one list of documents in each format, and its shards as the rule of
Modded-NanoGPT's data/fineweb.py and Python's tiktoken give them.

    pip install tiktoken pyarrow zstandard numpy
    python make.py [r50k_base.tiktoken]      without the file tiktoken fetches it
"""
import gzip
import json
import random
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tiktoken
import zstandard
from tiktoken.load import load_tiktoken_bpe
if len(sys.argv) > 1:
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    special = {"<|endoftext|>": 50256}
    enc = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=load_tiktoken_bpe(sys.argv[1]), special_tokens=special)
else:
    enc = tiktoken.get_encoding("gpt2")
assert enc.encode_ordinary("Hello, world!") == [15496, 11, 995, 0]
docs = [
 "The first document.\nIt has two lines, and it's short.",
 "A line with <|endoftext|> in it is text.",
 "I'll say they're here, we've been, he'd go, don't, I'm; 'S 'LL ''s.",
 "    indented\n\n\n\tcode = {\"a\": 1.50}  # trailing   \n   ",
 "Ünïcödé, naïve café — “quotes”, ellipsis…, ½ ² Ⅷ ٣٤.",
 "日本語のテキスト、中文文本。한국어 텍스트. العربية עברית हिन्दी",
 "😀 👨‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u200b zero width, \u00a0nbsp, \u3000wide, \u2028separator",
 " ",
 "x" * 300 + "1234567890" * 20 + "!" * 77 + " " * 90 + "end",
 "\x00\x01 control \x7f\r\ncarriage\rreturn\x0bvertical\x0c\x85next",
]
r = random.Random(7)
words = "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do".split()
docs += [" ".join(r.choice(words) for _ in range(r.randrange(1, 160))).capitalize() + "." for _ in range(24)]
docs.append("The last document, after which nothing follows.")
empty_at = 5
rows = docs[:empty_at] + [""] + docs[empty_at:]
def tokens_of(docs):
    return [np.array([enc.eot_token] + enc.encode_ordinary(d), dtype=np.uint16) for d in docs]
def shards(docs, size, name):
    # The rule of Modded-NanoGPT's data/fineweb.py.
    out, index, count, buf = {}, 0, 0, np.empty((size,), dtype=np.uint16)
    def put(tokens):
        nonlocal index
        out[f"{name}_{'val' if index == 0 else 'train'}_{index:06d}.bin"] = [int(t) for t in tokens]
        index += 1
    for t in tokens_of(docs):
        if count + len(t) < size:
            buf[count:count+len(t)] = t; count += len(t)
        else:
            rest = size - count
            buf[count:count+rest] = t[:rest]; put(buf)
            buf[0:len(t)-rest] = t[rest:]; count = len(t) - rest
    if count: put(buf[:count])
    return out
def dump(o, f):
    with open(f, "w") as h:
        h.write("{\n" + ",\n".join(f'  {json.dumps(k)}: {json.dumps(v, separators=(",", ":"))}' for k, v in o.items()) + "\n}\n")
dump(shards(rows, 700, "docs"), "rows.json")
sep = "\n=====\n"
dump(shards(docs, 700, "docs"), "docs.json")
open("docs.txt", "w", newline="").write(sep.join(docs) + sep)
lines = [json.dumps({"id": i, "meta": {"text": "not this"}, "text": d, "score": 0.5}, ensure_ascii=i % 2 == 0) + "\n" for i, d in enumerate(rows)]
lines.insert(3, "\n")
text = "".join(lines).encode()
open("docs.jsonl", "wb").write(text)
half = len(b"".join(l.encode() for l in lines[:9]))
open("docs.jsonl.gz", "wb").write(gzip.compress(text[:half], mtime=0) + gzip.compress(text[half:], mtime=0))
z = zstandard.ZstdCompressor(level=19)
open("docs.jsonl.zst", "wb").write(z.compress(text[:half]) + z.compress(text[half:]))
table = pa.table({"id": list(range(len(rows))), "meta": [{"text": "not this", "tags": ["a", "b"]} for _ in rows], "text": rows, "scores": [[1, 2]] * len(rows)})
required = pa.table({"text": rows}, schema=pa.schema([pa.field("text", pa.string(), nullable=False)]))
pq.write_table(table, "docs.parquet", row_group_size=10, compression="snappy")
pq.write_table(required, "required.parquet", row_group_size=20, compression="zstd", data_page_size=512, use_dictionary=False, data_page_version="2.0")
pq.write_table(pa.table({"text": pa.array(rows, pa.large_string())}), "gzip.parquet", compression="gzip")
pq.write_table(pa.table({"text": ["a", None, "b"], "n": [1, 2, 3], "lists": [["a"], [], ["b"]]}), "nulls.parquet", compression="none")
pq.write_table(pa.table({"text": pa.array([b"ok", b"\xff"], pa.binary())}), "bytes.parquet", compression="lz4")
pq.write_table(pa.table({"text": pa.array([], pa.string())}), "empty.parquet")
