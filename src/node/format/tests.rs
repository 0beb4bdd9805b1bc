use super::*;
use crate::cluster::map::{ClusterMap, NodeFacts};
use crate::cluster::{Seen, ToldStart};
use crate::config::Peer;

fn format() -> Result<Format, StartError> {
    Ok(Format::new("00".into(), 2, 128, "dsync"))
}

fn peers(list: &str) -> Vec<Peer> {
    crate::config::parse_peers(list).unwrap()
}

fn map(cluster: u64) -> ClusterMap {
    let facts = |name: &str, port| NodeFacts {
        name: name.to_owned(),
        address: format!("127.0.0.1:{port}"),
        cores: 2,
        zone: "z".to_owned(),
        weight: 100,
        folder: "00".to_owned(),
    };
    let nodes = vec![facts("a", 1), facts("b", 2)];
    ClusterMap::bootstrap(cluster, 128, 3, nodes).unwrap()
}

#[test]
fn a_folder_stays_with_its_node() {
    let dir = tempfile::tempdir().unwrap();
    let open = || DataDir::open(dir.path(), format).unwrap();
    let (list, other) = (peers("a=x:1,b=x:2"), peers("a=x:1,b=x:3"));
    open().identify("a", &list).unwrap();
    let mut data = open();
    assert_eq!(data.format().boots, 2);
    data.identify("a", &list).unwrap();
    let name = data.identify("b", &list).unwrap_err();
    assert!(matches!(name, StartError::OtherNode { .. }), "{name}");
    for peers in [&other, &vec![]] {
        let error = data.identify("a", peers).unwrap_err();
        assert!(matches!(error, StartError::OtherPeers { .. }), "{error}");
    }
    assert!(data.cluster().unwrap().is_none());
    data.belong(&map(7), 1).unwrap();
    for (cluster, node) in [(8, 1), (7, 2)] {
        let error = data.belong(&map(cluster), node).unwrap_err();
        assert!(matches!(error, StartError::OtherCluster { .. }), "{error}");
    }
    drop(data);
    assert_eq!(open().cluster().unwrap(), Some((map(7), 1)));

    std::fs::write(dir.path().join("CLUSTER"), map(8).encode().unwrap()).unwrap();
    let swapped = open().cluster().unwrap_err().to_string();
    assert!(
        swapped.contains("the map of cluster 0000000000000008"),
        "{swapped}"
    );
    std::fs::write(dir.path().join("CLUSTER"), "x").unwrap();
    assert!(matches!(open().cluster(), Err(StartError::Damaged { .. })));
}

#[test]
fn lost_data_is_moved_aside_and_the_folder_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let open = || DataDir::open(dir.path(), format).unwrap();
    let list = peers("a=x:1,b=x:2");
    let shard = dir.path().join("shard-000");
    for number in 1..=LOST_MAX {
        let mut data = open();
        data.identify("a", &list).unwrap();
        data.belong(&map(7), 1).unwrap();
        data.begin().unwrap();
        std::fs::create_dir_all(shard.join("log")).unwrap();
        assert!(!data.has_log(0));
        std::fs::write(shard.join("log/00000001.seg"), number.to_string()).unwrap();
        assert!(data.has_log(0));
        data.lose("its log is damaged").unwrap();
        data.lose("again").unwrap();
        drop(data);
        let mut data = open();
        let why = data.format().lost.clone();
        assert_eq!(why.as_deref(), Some("its log is damaged"));
        if number == 2 {
            // A crash after the first files were moved.
            std::fs::create_dir(dir.path().join("lost-2")).unwrap();
            std::fs::rename(&shard, dir.path().join("lost-2/shard-000")).unwrap();
        }
        let aside = data.set_aside(format!("{number:02x}")).unwrap();
        assert_eq!(aside, dir.path().join(format!("lost-{number}")));
        let kept = std::fs::read_to_string(aside.join("shard-000/log/00000001.seg"));
        assert_eq!(kept.unwrap(), number.to_string());
        assert!(aside.join("CLUSTER").exists() && aside.join("FORMAT").exists());
        assert!(!shard.exists());
        drop(data);
        let data = open();
        assert_eq!(data.rejoins(), 7);
        assert_eq!(data.cluster().unwrap(), None);
        let format = data.format();
        assert_eq!((&format.lost, format.begun), (&None, false));
        assert_eq!(format.id, format!("{number:02x}"));
        assert_eq!(format.node.as_ref().unwrap().name, "a");
    }
    let mut data = open();
    data.lose("once more").unwrap();
    let often = data.set_aside("ff".into()).unwrap_err().to_string();
    assert!(
        often.contains("once more") && often.contains("3 folders"),
        "{often}"
    );
}

#[test]
fn starts_of_others_are_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path(), format).unwrap();
    assert_eq!(data.seen().unwrap(), []);
    let seen = |node, boot| Seen {
        node,
        boot,
        start: u64::MAX,
    };
    let two = [seen(1, 5), seen(3, 1 << 32)];
    data.keep_seen(&two).unwrap();
    assert_eq!(data.seen().unwrap(), two);
    let text = std::fs::read_to_string(dir.path().join("SEEN")).unwrap();
    for damaged in [
        text.replacen('5', "4", 1),
        text[1..].to_owned(),
        String::new(),
    ] {
        std::fs::write(dir.path().join("SEEN"), damaged).unwrap();
        assert!(matches!(data.seen(), Err(StartError::Damaged { .. })));
    }
}

#[test]
fn a_start_is_told_of_again_until_it_is_welcomed() {
    let dir = tempfile::tempdir().unwrap();
    let open = || DataDir::open(dir.path(), format).unwrap();
    let told = |boots, random| ToldStart { boots, random };
    assert_eq!(open().tell_start(u64::MAX).unwrap(), told(1, u64::MAX));
    let mut again = open();
    assert_eq!(again.tell_start(7).unwrap(), told(1, u64::MAX));
    again.start_welcomed().unwrap();
    drop(again);
    assert_eq!(open().tell_start(8).unwrap(), told(3, 8));
}

#[test]
fn an_older_folder_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = DataDir::open(dir.path(), format).unwrap();
    assert_eq!(data.format().node, None);
    data.identify("b", &[]).unwrap();
    assert_eq!(data.format().node.as_ref().unwrap().name, "b");
    let error = data.identify("b", &peers("b=x:1")).unwrap_err();
    assert!(matches!(error, StartError::OtherPeers { .. }), "{error}");
}

#[test]
fn boots_are_counted_and_the_folder_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let first = DataDir::open(dir.path(), format).unwrap();
    assert_eq!(first.format().boots, 1);
    let second = DataDir::open(dir.path(), format);
    assert!(matches!(second, Err(StartError::InUse(_))), "{second:?}");
    drop(first);
    let again = DataDir::open(dir.path(), || unreachable!("it is there")).unwrap();
    assert_eq!(again.format().boots, 2);
}

#[test]
fn layouts_are_switched_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = DataDir::open(dir.path(), format).unwrap();
    for (layout, core) in [(0, 0), (0, 1), (1, 0)] {
        std::fs::create_dir(data.shard_in(layout, core)).unwrap();
    }
    assert_eq!(data.leftovers().unwrap(), [dir.path().join("shard-000.1")]);
    data.switch(1).unwrap();
    assert_eq!(data.shard(0), dir.path().join("shard-000.1"));
    let old = ["shard-000", "shard-001"].map(|name| dir.path().join(name));
    assert_eq!(data.leftovers().unwrap(), old);
    drop(data);
    let data = DataDir::open(dir.path(), || unreachable!("it is there")).unwrap();
    assert_eq!((data.format().layout, data.format().cores), (1, 1));
}

#[test]
fn other_folders_and_versions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("photo.jpg"), "x").unwrap();
    let foreign = DataDir::open(dir.path(), format);
    assert!(
        matches!(foreign, Err(StartError::Foreign(_))),
        "{foreign:?}"
    );

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("FORMAT"), "version = 9\nnew = true\n").unwrap();
    let newer = DataDir::open(dir.path(), format);
    assert!(
        matches!(newer, Err(StartError::Format { found: 9, .. })),
        "{newer:?}"
    );

    std::fs::write(dir.path().join("FORMAT"), "\0\0\0").unwrap();
    let damaged = DataDir::open(dir.path(), format);
    assert!(
        matches!(damaged, Err(StartError::Damaged { .. })),
        "{damaged:?}"
    );
}
