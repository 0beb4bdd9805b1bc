//! The blocking client. Start a server, then: `cargo run --example blocking`.

use ringbolt_client::Error;
use ringbolt_client::blocking::Client;

fn main() -> Result<(), Error> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or("127.0.0.1:7400".to_owned());
    let client = Client::connect(address)?;
    for n in 0..10 {
        client.put(format!("n:{n}"), n.to_string())?;
    }
    println!("visits: {}", client.increment("visits", 1)?.value);
    for row in client.scan(|scan| scan.prefix("n:").limit(5)) {
        let row = row?;
        let (key, value) = (&row.key[..], &row.value[..]);
        println!(
            "{} = {}",
            String::from_utf8_lossy(key),
            String::from_utf8_lossy(value)
        );
    }
    Ok(())
}
