use std::time::Duration;

use ringbolt_client::{Ack, Batch, Error, ErrorCode, KeyspaceOptions, Ttl, WriteOptions};

use crate::fake::Settings;
use crate::memory;

#[tokio::test]
async fn a_record_is_put_read_and_deleted() {
    let server = memory::start(Settings::default()).await;
    let client = server.connect().await;
    assert_eq!(client.get("k").await.unwrap(), None);
    let first = client.put("k", "v").await.unwrap();
    let record = client.get("k").await.unwrap().unwrap();
    assert_eq!(&record.value[..], b"v");
    assert_eq!(record.meta.version, first.version());
    let stat = client.stat("k").await.unwrap().unwrap();
    assert_eq!((stat.value_bytes, stat.meta), (1, record.meta));
    let deleted = client.delete("k").await.unwrap();
    assert!(deleted.version() > first.version());
    assert_eq!(client.get("k").await.unwrap(), None);
    assert_eq!(client.stat("k").await.unwrap(), None);
}

#[tokio::test]
async fn conditions_hold_or_fail_with_the_version() {
    let server = memory::start(Settings::default()).await;
    let client = server.connect().await;
    let absent = WriteOptions::new().if_absent();
    let first = client.put_with("k", "1", &absent).await.unwrap();
    match client.put_with("k", "2", &absent).await {
        Err(Error::ConditionFailed { version }) => assert_eq!(version, Some(first.version())),
        other => panic!("{other:?}"),
    }
    let options = WriteOptions::new()
        .if_version(first.version())
        .ack(Ack::All);
    client.put_with("k", "2", &options).await.unwrap();
    assert!(client.put_with("k", "3", &options).await.is_err());
    assert!(
        client
            .delete_if_version("k", first.version())
            .await
            .is_err()
    );
    client.delete("k").await.unwrap();
    match client
        .put_with("k", "4", &WriteOptions::new().if_present())
        .await
    {
        Err(Error::ConditionFailed { version }) => assert_eq!(version, None),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn counters_and_expiries() {
    let server = memory::start(Settings::default()).await;
    let client = server.connect().await;
    assert_eq!(client.increment("n", 5).await.unwrap().value, 5);
    let touched = client.touch("n", Ttl::AtMs(99)).await.unwrap().unwrap();
    assert_eq!(touched.existed, Some(true));
    assert_eq!(client.increment("n", -7).await.unwrap().value, -2);
    let record = client.get("n").await.unwrap().unwrap();
    assert_eq!(
        (&record.value[..], record.meta.expires_ms),
        (&b"-2"[..], 99)
    );
    let options = WriteOptions::new().expires_after(Duration::from_micros(2500));
    client.put_with("n", "x", &options).await.unwrap();
    let stat = client.stat("n").await.unwrap().unwrap();
    assert_eq!(stat.meta.expires_ms, 1_000_003);
    match client.increment("n", 1).await {
        Err(Error::Invalid(reason)) => assert_eq!(reason.code, ErrorCode::NotANumber),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.touch("none", Ttl::Never).await.unwrap(), None);
}

#[tokio::test]
async fn a_batch_is_done_whole_or_not_at_all() {
    let server = memory::start(Settings::default()).await;
    let client = server.connect().await;
    let batch = Batch::new()
        .put("{u}name", "Ada")
        .increment("{u}logins", 1)
        .delete("{u}none");
    let done = client.batch(&batch).await.unwrap();
    assert_eq!(done.counters, [None, Some(1), None]);
    let refused = Batch::new().put("{u}name", "Bob").put_with(
        "{u}logins",
        "0",
        &WriteOptions::new().if_absent(),
    );
    match client.batch(&refused).await {
        Err(Error::ConditionFailed { version }) => assert_eq!(version, Some(done.token.index)),
        other => panic!("{other:?}"),
    }
    let refused = Batch::new()
        .put("{u}name", "Bob")
        .touch("{u}none", Ttl::Never);
    match client.batch(&refused).await {
        Err(Error::ConditionFailed { version: None }) => {}
        other => panic!("{other:?}"),
    }
    let record = client.get("{u}name").await.unwrap().unwrap();
    assert_eq!(&record.value[..], b"Ada");

    for (batch, code) in [
        (Batch::new(), ErrorCode::BadRequest),
        (Batch::new().put("", "v"), ErrorCode::BadRequest),
        (
            Batch::new().put("a", "").put("b", "").put("c", ""),
            ErrorCode::CrossPartition,
        ),
    ] {
        assert_eq!(client.batch(&batch).await.unwrap_err().code(), Some(code));
    }
}

#[tokio::test]
async fn many_keys_come_back_in_order() {
    let server = memory::start(Settings::default()).await;
    let client = server.connect().await;
    for n in 0..50 {
        client.put(format!("k{n}"), format!("v{n}")).await.unwrap();
    }
    let keys: Vec<String> = (0..60).rev().map(|n| format!("k{n}")).collect();
    let records = client.multi_get(&keys).await.unwrap();
    for (n, record) in (0..60).rev().zip(records) {
        let value = record.map(|record| record.value);
        assert_eq!(value, (n < 50).then(|| format!("v{n}").into()));
    }
    assert_eq!(client.multi_get([""; 0]).await.unwrap(), []);
}

#[tokio::test]
async fn many_keys_whose_reply_is_too_large_are_asked_for_in_parts() {
    let server = memory::start(Settings::default()).await;
    let client = server.connect().await;
    let large = vec![b'x'; 400_000];
    let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    for key in &keys {
        client.put(key, &large).await.unwrap();
    }
    let records = client.multi_get(&keys).await.unwrap();
    assert!(
        records
            .iter()
            .all(|record| record.as_ref().unwrap().value == large)
    );
}

#[tokio::test]
async fn scans_go_on_until_the_cursor_is_empty() {
    let server = memory::start(Settings::default()).await;
    let client = server.connect().await;
    for key in ["a", "b1", "b2", "b3", "b4", "b5", "c"] {
        client.put(key, "v").await.unwrap();
    }
    let keys = async |scan: ringbolt_client::Scan| {
        let rows = scan.rows().collect().await.unwrap();
        rows.iter()
            .map(|row| String::from_utf8(row.key.to_vec()).unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(keys(client.scan()).await, "a b1 b2 b3 b4 b5 c");
    assert_eq!(keys(client.scan().prefix("b")).await, "b1 b2 b3 b4 b5");
    assert_eq!(
        keys(client.scan().prefix("b").reverse()).await,
        "b5 b4 b3 b2 b1"
    );
    assert_eq!(keys(client.scan().start("b2").end("b5")).await, "b2 b3 b4");
    assert_eq!(keys(client.scan().start("b2").limit(3)).await, "b2 b3 b4");
    assert_eq!(keys(client.scan().page_rows(1).limit(3)).await, "a b1 b2");
    assert_eq!(keys(client.scan().limit(0)).await, "");
    assert_eq!(keys(client.scan().prefix("x")).await, "");

    let mut rows = client.scan().keys_only().rows();
    let row = rows.next().await.unwrap().unwrap();
    assert_eq!((&row.key[..], &row.value[..]), (&b"a"[..], &b""[..]));
    // One row of the page is still to be taken; the cursor is past it.
    let cursor = rows.cursor().unwrap();
    assert_eq!(keys(client.scan().cursor(cursor)).await, "b2 b3 b4 b5 c");

    let page = client.scan().page().await.unwrap();
    assert!(page.rows.is_empty() && page.cursor.is_some());
    let page = client
        .scan()
        .cursor(page.cursor.unwrap())
        .limit(1)
        .page()
        .await
        .unwrap();
    assert_eq!(page.rows.len(), 1);
}

#[tokio::test]
async fn keyspaces_are_apart() {
    let server = memory::start(Settings::default()).await;
    let client = server.connect().await;
    let users = client
        .create_keyspace("users", KeyspaceOptions::default())
        .await
        .unwrap();
    users.put("k", "users").await.unwrap();
    client.put("k", "default").await.unwrap();
    let again = client.keyspace("users").await.unwrap();
    assert_eq!(again.id(), users.id());
    assert_eq!(&again.get("k").await.unwrap().unwrap().value[..], b"users");
    assert_eq!(client.keyspace("default").await.unwrap().id(), 0);
    let names: Vec<String> = client
        .keyspaces()
        .await
        .unwrap()
        .into_iter()
        .map(|keyspace| keyspace.name)
        .collect();
    assert_eq!(names, ["default", "users"]);
    let exists = client
        .create_keyspace("users", KeyspaceOptions::default())
        .await
        .unwrap_err();
    assert_eq!(exists.code(), Some(ErrorCode::KeyspaceExists));
    let bad = client
        .create_keyspace("no spaces", KeyspaceOptions::default())
        .await
        .unwrap_err();
    assert_eq!(bad.code(), Some(ErrorCode::BadRequest));
    client.drop_keyspace("users").await.unwrap();
    let none = client.keyspace("users").await.unwrap_err();
    assert_eq!(none.code(), Some(ErrorCode::NoSuchKeyspace));
}

#[tokio::test]
async fn limits_are_held_before_anything_is_sent() {
    let server = memory::start(Settings::default()).await;
    let client = server.connect().await;
    let limits = Settings::default().limits;
    let key = vec![b'k'; limits.key_bytes_max as usize];
    let value = vec![b'v'; limits.value_bytes_max as usize];
    client.put(&key, &value).await.unwrap();
    assert_eq!(client.get(&key).await.unwrap().unwrap().value, value);
    let long_key = [&key[..], b"k"].concat();
    let long_value = [&value[..], b"v"].concat();
    for refused in [
        client.get(&long_key).await.unwrap_err(),
        client.put(&long_key, "").await.unwrap_err(),
        client.put("k", &long_value).await.unwrap_err(),
        client.multi_get([&long_key]).await.unwrap_err(),
        client
            .batch(&Batch::new().put("k", &long_value))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(refused.code(), Some(ErrorCode::TooLarge), "{refused}");
    }
    let empty = client.get("").await.unwrap_err();
    assert_eq!(empty.code(), Some(ErrorCode::BadRequest));
    // All of it over the connections that the first two requests opened.
    assert!(server.connections() <= 2);
}

#[tokio::test]
async fn the_server_tells_of_itself() {
    let server = memory::start(Settings::default()).await;
    let client = server.connect().await;
    client.ping().await.unwrap();
    assert_eq!(client.stats().await.unwrap(), [("rows".to_owned(), 7)]);
}
