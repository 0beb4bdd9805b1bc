//! `ringbolt plan`: a question in, a table or an object out, without any server.

use super::run;

const QUESTION: [&str; 9] = [
    "plan",
    "--keys",
    "10e9",
    "--value-size",
    "10KB",
    "--replicas",
    "3",
    "--node-disk",
    "2TB",
];

#[test]
fn a_table_for_people_and_an_object_for_scripts() {
    let text = run(&QUESTION);
    assert_eq!((text.code, text.stderr.as_str()), (0, ""));
    for figure in [
        "nodes",
        "partitions",
        "disk used",
        "memory",
        "write amplification",
        "reads per get",
        "puts per core",
        "restart",
        "lost node",
    ] {
        let told = text
            .stdout
            .lines()
            .any(|line| line.trim().starts_with(figure));
        assert!(told, "{figure} is missing:\n{}", text.stdout);
    }
    assert!(
        !text.stdout.contains("drive writes a day"),
        "no puts, no wear"
    );
    assert!(text.stdout.lines().all(|line| line.chars().count() <= 100));

    let traffic = ["--puts", "100k", "--format", "json"];
    let json = run(&[&QUESTION[..], &traffic].concat());
    assert_eq!(json.code, 0, "{}", json.stderr);
    let plan: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let nodes = plan["nodes"].as_u64().unwrap();
    assert!(
        (151..300).contains(&nodes),
        "{nodes}: 300 TB of data on disks of 2 TB"
    );
    assert!(plan["device"]["drive_writes_per_day"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_cannot_be_is_told_in_the_format_asked_for() {
    let wrong = ["--cores", "2000", "--format", "json"];
    let ended = run(&[&QUESTION[..], &wrong].concat());
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("cores of a node is 2000"), "{message}");
}
