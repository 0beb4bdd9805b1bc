//! The example of `docs/format-table.md`, byte for byte.

use std::path::Path;
use std::rc::Rc;

use super::{Builder, BuilderOptions, TableContext, Unthrottled};
use crate::cache::BlockCache;
use crate::compress::Compression;
use crate::env::sim::{self, SimOptions};
use crate::row::{Cell, RowMeta};

const DOC: &str = include_str!("../../../docs/format-table.md");

/// The bytes of a fenced example, whose lines begin with hex and may end with `| words`.
fn example(name: &str) -> Vec<u8> {
    let fence = format!("```hex {name}\n");
    let start = DOC.find(&fence).expect("the example is there") + fence.len();
    let text = DOC[start..].split("```").next().unwrap_or_default();
    text.lines()
        .flat_map(|line| {
            line.split('|')
                .next()
                .unwrap_or_default()
                .split_whitespace()
        })
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.join(" ") + "\n"
    };
    bytes.chunks(16).map(line).collect()
}

/// To write the examples anew: `RINGBOLT_REWRITE=1 cargo test -p ringbolt-engine table::golden`.
fn assert_example(name: &str, bytes: &[u8]) {
    if std::env::var_os("RINGBOLT_REWRITE").is_some() {
        return rewrite(name, bytes);
    }
    let shown = hex(bytes);
    assert!(
        example(name) == bytes,
        "docs/format-table.md, example {name}, should be:\n{shown}"
    );
}

fn rewrite(name: &str, bytes: &[u8]) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/format-table.md");
    let doc = std::fs::read_to_string(path).expect("it is there");
    let fence = format!("```hex {name}\n");
    let start = doc.find(&fence).expect("the example is there") + fence.len();
    let end = start + doc[start..].find("```").expect("the block ends");
    let doc = doc[..start].to_owned() + &hex(bytes) + &doc[end..];
    std::fs::write(path, doc).expect("written");
}

#[test]
fn the_documented_table_is_what_is_written() {
    let path = Path::new("7");
    let (content, footer) = sim::run(1, SimOptions::default(), |env| async move {
        let store = env.store().clone();
        let context = TableContext::new(env, Rc::new(BlockCache::new(0)));
        let options = BuilderOptions {
            compression: Compression::None,
            bits_per_key: 0,
            ..BuilderOptions::default()
        };
        let mut builder = Builder::create(&context, path, 7, options, Rc::new(Unthrottled))
            .await
            .expect("created");
        let meta = RowMeta {
            version: 9,
            updated_ms: 1000,
            created_ms: 900,
            expires_ms: 0,
        };
        let put = Cell::Put {
            meta,
            value: b"red",
        };
        builder.add(b"apple", &put).expect("taken");
        builder
            .add(b"apply", &Cell::Delete { version: 12 })
            .expect("taken");
        builder.add_range_delete(b"b", b"c", 13).expect("taken");
        builder.finish().await.expect("finished");
        let table = super::Table::open(&context, path, 7, None)
            .await
            .expect("opens");
        (
            store.content(path).expect("the file"),
            table.footer().clone(),
        )
    });
    let data = footer.data_bytes as usize;
    let filter = data + footer.filter_bytes as usize;
    let index = filter + footer.index_bytes as usize;
    let deletes = footer.range_deletes_offset as usize;
    let top = footer.top_offset as usize;
    for (name, bytes) in [
        ("data", &content[..data]),
        ("filter", &content[data..filter]),
        ("index", &content[filter..index]),
        ("range-deletes", &content[deletes..top]),
        ("top", &content[top..top + footer.top_len as usize]),
        ("trailer", &content[content.len() - 56..]),
    ] {
        assert_example(name, bytes);
    }
}
