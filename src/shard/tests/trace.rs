//! The account of requests that go over cores.

use std::time::Duration;

use ringbolt_wire::list::KeysBuf;
use ringbolt_wire::message::{Condition, ReadOptions, Request, Response, Scan, Ttl};
use ringbolt_wire::partition_of;

use super::rig::{Rig, limits, with_node};
use super::{done, get, put};
use crate::shard::limits::ShardLimits;
use crate::shard::trace::{AccountView, Op, Outcome, Wait};
use crate::shard::view::Depth;

fn account(rig: &Rig, core: usize) -> AccountView {
    rig.shards[core].view(Depth::Requests).account
}

/// A key of a partition that a core of two owns.
fn key_of(rig: &Rig, core: u16) -> String {
    let map = &rig.shards[0].0.config.map;
    (0..)
        .map(|n| format!("key-{n}"))
        .find(|key| map.core_of(partition_of(key.as_bytes(), map.partitions())) == core)
        .unwrap()
}

#[test]
fn every_request_is_counted_once_and_its_stages_add_up_wherever_it_goes() {
    let limits = ShardLimits {
        // Everything that takes any time is slow.
        slow_threshold: Duration::from_micros(1),
        ..limits()
    };
    with_node(11, 2, limits, |rig| async move {
        let conn = rig.connect(0, None).await;
        let (near, far) = (key_of(&rig, 0), key_of(&rig, 1));
        for key in [&near, &far] {
            let value = put(key.as_bytes(), b"v", Ttl::Default, Condition::None);
            done(&rig, conn, &value).await;
        }
        let found = |reply: Response<'_>| assert!(matches!(reply, Response::Value { .. }));
        rig.call(conn, &get(far.as_bytes()), found).await;
        let mut keys = KeysBuf::new();
        keys.push(near.as_bytes()).unwrap();
        keys.push(far.as_bytes()).unwrap();
        let both = Request::MultiGet {
            keyspace: 0,
            read: ReadOptions::default(),
            keys: keys.as_keys(),
        };
        rig.call(conn, &both, |reply| {
            assert!(matches!(reply, Response::Values { .. }));
        })
        .await;
        let scan = Request::Scan(Scan {
            keyspace: 0,
            read: ReadOptions::default(),
            prefix: b"key-",
            start: b"",
            end: b"",
            cursor: b"",
            limit: 0,
            reverse: false,
            keys_only: false,
        });
        rig.call(conn, &scan, |reply| {
            assert!(matches!(reply, Response::Rows { .. }));
        })
        .await;

        let (here, there) = (account(&rig, 0), account(&rig, 1));
        let count = |account: &AccountView, op: Op| account.counts[op as usize];
        for (op, times) in [(Op::Put, 2), (Op::Get, 1), (Op::MultiGet, 1), (Op::Scan, 1)] {
            assert_eq!(count(&here, op)[Outcome::Ok as usize], times, "{op:?}");
            assert_eq!(count(&there, op).iter().sum::<u64>(), 0, "{op:?} once");
        }
        for slow in here.slow.iter().chain(&there.slow) {
            assert_eq!(slow.waits.iter().sum::<u32>(), slow.total_us, "{slow:?}");
        }
        let put = there.slow.iter().find(|slow| slow.op == Op::Put).unwrap();
        assert_eq!(put.key, Some((0, far.clone().into_bytes())));
        assert!(put.waits[Wait::Mailbox as usize] > 0, "{put:?}");
        assert!(put.waits[Wait::Log as usize] > 0, "{put:?}");
        let puts = here.slow.iter().filter(|slow| slow.op == Op::Put);
        assert_eq!(puts.count(), 1, "the near one, and not the far one again");
        let scanned = here.slow.iter().find(|slow| slow.op == Op::Scan).unwrap();
        assert!(scanned.waits[Wait::Forward as usize] > 0, "{scanned:?}");
    });
}
