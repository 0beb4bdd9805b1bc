//! A tour of the asynchronous client. Start a server, then: `cargo run --example tour`.

use std::time::Duration;

use ringbolt_client::{Batch, Client, Error, WriteOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or("127.0.0.1:7400".to_owned());
    let client = Client::builder()
        .address(address)
        .deadline(Duration::from_secs(2))
        .connect()
        .await?;

    // A value, and a change that is done only if nobody was faster.
    client.put("user:1", "Ada").await?;
    if let Some(record) = client.get("user:1").await? {
        println!("user:1 is {}", String::from_utf8_lossy(&record.value));
        let unchanged = WriteOptions::new().if_version(record.meta.version);
        match client.put_with("user:1", "Ada Lovelace", &unchanged).await {
            Ok(written) => println!("renamed; now at version {}", written.version()),
            Err(Error::ConditionFailed { version }) => println!("too late: {version:?}"),
            Err(error) => return Err(error),
        }
    }

    // Keys that share a {tag} can be written together.
    let batch = Batch::new()
        .put("{user:1}:mail", "ada@example.org")
        .increment("{user:1}:logins", 1);
    let done = client.batch(&batch).await?;
    println!("login number {:?}", done.counters[1]);

    // A value that goes away by itself.
    let for_a_minute = WriteOptions::new().expires_after(Duration::from_secs(60));
    client.put_with("session:1", "token", &for_a_minute).await?;

    // Many requests at once share the connections.
    let puts = (0..100).map(|n| {
        let client = client.clone();
        async move { client.put(format!("number:{n:03}"), n.to_string()).await }
    });
    futures_util::future::try_join_all(puts).await?;

    let mut rows = client.scan().prefix("number:").reverse().limit(3).rows();
    while let Some(row) = rows.next().await? {
        println!("{}", String::from_utf8_lossy(&row.key));
    }

    // The one error to think about: the write may have been done.
    match client.put("user:2", "Grace").await {
        Ok(_) => println!("done"),
        Err(error) if error.is_in_doubt() => println!("find out: {error}"),
        Err(error) => println!("not done: {error}"),
    }
    Ok(())
}
