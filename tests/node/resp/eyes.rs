//! What operators see of Redis clients.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{PATIENCE, ask, client, run, start};
use crate::support::free_address;
use crate::support::http::get;

#[test]
fn clients_of_all_cores_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &[]);
    let mut connections: Vec<_> = (0..16).map(|_| client(node.resp, "resp3")).collect();
    for (n, c) in connections.iter_mut().enumerate() {
        run::<()>(c, &format!("CLIENT SETNAME client-{n}"));
    }
    // Each core answers some of them.
    for c in &mut connections[..8] {
        let list: String = run(c, "CLIENT LIST");
        let field = |line: &str, name: &str| -> String {
            let mut fields = line.split(' ').filter_map(|field| field.strip_prefix(name));
            fields.next().unwrap().to_owned()
        };
        let mut names: Vec<String> = list.lines().map(|line| field(line, "name=")).collect();
        let mut ids: Vec<String> = list.lines().map(|line| field(line, "id=")).collect();
        names.sort();
        let mut expected: Vec<String> = (0..16).map(|n| format!("client-{n}")).collect();
        expected.sort();
        assert_eq!(names, expected);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 16);
        let own: String = run(c, "CLIENT INFO");
        assert!(ids.contains(&field(&own, "id=")), "{own}");
    }
}

#[test]
fn keys_of_redis_clients_can_be_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let (addr, resp, admin) = (free_address(), free_address(), free_address());
    let log = dir.path().join("log");
    let mut child = crate::support::command(&dir.path().join("data"), addr)
        .args([
            "--cores",
            "2",
            "--memory",
            "256MiB",
            "--resp",
            &resp.to_string(),
        ])
        .args(["--admin", &admin.to_string(), "--set", "admin.keys=hide"])
        // All requests that leave their turn are slow, and all is said.
        .args([
            "--set",
            "admin.slow_threshold=100us",
            "--set",
            "messages.level=trace",
        ])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    // The port is claimed before it is served.
    let mut c = loop {
        let url = format!("redis://{resp}");
        if let Ok(connection) = redis::Client::open(url).unwrap().get_connection() {
            break connection;
        }
        assert!(Instant::now() < deadline, "it does not serve");
        std::thread::sleep(Duration::from_millis(20));
    };
    let (told, slow) = loop {
        for _ in 0..20 {
            run::<()>(&mut c, "SET secret-key secret-value");
            run::<String>(&mut c, "GET secret-key");
            run::<i64>(&mut c, "APPEND secret-key more");
            run::<()>(&mut c, "MSET secret-key 1 secret-2 2");
            let _refused = ask::<i64>(&mut c, "INCRBY secret-text x");
        }
        let (_, told) = get(admin, "/api/hot");
        let (_, slow) = get(admin, "/api/slow");
        let is_told = |text: &str| text.contains("\"key\":\"#");
        if is_told(&told) && is_told(&slow) {
            break (told, slow);
        }
        assert!(Instant::now() < deadline, "{told} {slow}");
    };
    let pages = ["/metrics", "/metrics/detail", "/api/status", "/api/series"];
    let pages = pages.map(|path| get(admin, path).1);
    child.kill().unwrap();
    child.wait().unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(
        said.contains("listening") || said.lines().count() > 3,
        "{said}"
    );
    for text in [&told, &slow, &said].into_iter().chain(&pages) {
        assert!(!text.contains("secret"), "{text}");
    }
}
