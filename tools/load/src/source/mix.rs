//! The workloads: requests drawn by percentage, keys by distribution.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::load::Numbers;
use super::{Next, Op, OpKind, Outcome, Routing, Source};
use crate::Options;
use crate::keys::{Chooser, Keys};
use crate::value::draw_size;

/// How often a key is drawn again because it belongs to another core, at most. Each core has a
/// fair share of the keys, so this is never reached but with a hot key on a small core.
const DRAWS_MAX: u32 = 1000;

/// One thread's share of a workload.
#[derive(Debug)]
pub struct Mix {
    options: Arc<Options>,
    percent: [u8; 5],
    chooser: Chooser,
    routing: Routing,
    keys: Keys,
    inserts: Numbers,
    /// Records there are: those preloaded and those inserted since.
    newest: Arc<AtomicU64>,
    rng: SmallRng,
    /// Reads that found nothing.
    pub absent: u64,
    /// Rows that scans returned.
    pub rows: u64,
}

impl Mix {
    /// `newest` is shared by all threads and begins at the number of records.
    pub fn new(
        options: Arc<Options>,
        routing: Routing,
        newest: Arc<AtomicU64>,
        handed_out: Arc<AtomicU64>,
        seed: u64,
    ) -> Self {
        let keys = Keys::new(&options.key_prefix);
        Self {
            percent: options.workload.percent(),
            chooser: Chooser::new(options.distribution(), options.records),
            inserts: Numbers::new(handed_out, u64::MAX, routing.clone(), keys.clone()),
            routing,
            keys,
            newest,
            rng: SmallRng::seed_from_u64(seed),
            options,
            absent: 0,
            rows: 0,
        }
    }

    fn kind(&mut self) -> OpKind {
        let mut roll = self.rng.random_range(0..100u8);
        let kinds = [
            OpKind::Read,
            OpKind::Update,
            OpKind::Insert,
            OpKind::Scan,
            OpKind::Modify,
        ];
        for (kind, percent) in kinds.into_iter().zip(self.percent) {
            if roll < percent {
                return kind;
            }
            roll -= percent;
        }
        OpKind::Read
    }

    fn record(&mut self, place: Option<u16>) -> u64 {
        let records = self.newest.load(Ordering::Relaxed);
        let mut index = self.chooser.draw(&mut self.rng, records);
        if self.routing.is_anywhere() {
            return index;
        }
        for _ in 0..DRAWS_MAX {
            if self.routing.fits(self.keys.key(index), place) {
                break;
            }
            index = self.chooser.draw(&mut self.rng, records);
        }
        index
    }
}

impl Source for Mix {
    fn next(&mut self, _conn: usize, place: Option<u16>, _now_ns: u64) -> Next {
        let kind = self.kind();
        let index = match kind {
            OpKind::Insert => match self.inserts.next(place) {
                Some(index) => index,
                None => return Next::Done,
            },
            _ => self.record(place),
        };
        let size = if kind == OpKind::Scan {
            draw_size(&mut self.rng, &self.options.scan_rows)
        } else {
            draw_size(&mut self.rng, &self.options.value_bytes)
        };
        Next::Op(Op {
            kind,
            index,
            sequence: self.rng.random(),
            size,
            place: 0,
        })
    }

    fn done(&mut self, _conn: usize, op: &Op, _key: &[u8], outcome: Outcome<'_>, _now_ns: u64) {
        match outcome {
            Outcome::Absent => self.absent += 1,
            Outcome::Rows(rows) => self.rows += u64::from(rows),
            Outcome::Written if op.kind == OpKind::Insert => {
                self.newest.fetch_max(op.index + 1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Workload;

    fn mix(workload: Workload) -> Mix {
        let options = Arc::new(Options {
            workload,
            records: 1000,
            ..Options::default()
        });
        let newest = Arc::new(AtomicU64::new(1000));
        let next = Arc::new(AtomicU64::new(1000));
        Mix::new(options, Routing::anywhere(), newest, next, 5)
    }

    #[test]
    fn workloads_have_their_shares() {
        for workload in [
            Workload::Put,
            Workload::Get,
            Workload::Mixed { reads: 30 },
            Workload::Scan,
            Workload::YcsbA,
            Workload::YcsbB,
            Workload::YcsbC,
            Workload::YcsbD,
            Workload::YcsbE,
            Workload::YcsbF,
        ] {
            assert_eq!(workload.percent().iter().sum::<u8>(), 100, "{workload}");
            let mut mix = mix(workload);
            let mut counts = [0u32; 6];
            for _ in 0..10_000 {
                let Next::Op(op) = mix.next(0, None, 0) else {
                    panic!("a mix does not end");
                };
                counts[op.kind as usize] += 1;
                if op.kind == OpKind::Scan {
                    assert!((1..=100).contains(&op.size));
                }
            }
            for (share, percent) in counts.into_iter().zip(workload.percent()) {
                let percent = u32::from(percent);
                assert!(
                    share.abs_diff(percent * 100) <= 200,
                    "{workload}: {counts:?}"
                );
            }
        }
    }

    #[test]
    fn acknowledged_inserts_become_readable() {
        let mut mix = mix(Workload::YcsbD);
        let insert = loop {
            if let Next::Op(op) = mix.next(0, None, 0)
                && op.kind == OpKind::Insert
            {
                break op;
            }
        };
        assert_eq!(insert.index, 1000);
        mix.done(0, &insert, b"", Outcome::Written, 0);
        let newest = (0..1000).any(|_| mix.record(None) == 1000);
        assert!(newest);
    }
}
