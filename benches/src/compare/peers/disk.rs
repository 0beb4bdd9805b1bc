//! What the disk and the loopback can do by themselves: fio, and a bare round trip.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

use crate::compare::context::Context;
use crate::compare::gate::{Skip, median};
use crate::compare::process::{need, run};

/// What fio measured.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    /// Operations per second.
    pub per_second: f64,
    /// Median, the sync after it included, in microseconds.
    pub p50_us: f64,
}

fn fio(context: &Context, kind: &str, flags: &[&str]) -> Result<Disk, Skip> {
    need("fio", "fio")?;
    let base = ["--name=compare", "--output-format=json", "--direct=1"];
    let args = [&base[..], flags].concat();
    let finished = run(context.server_cpu, "fio", OsStr::new("fio"), &args, || ())?;
    // fio prints notes before the object.
    let json = finished
        .output
        .find('{')
        .map_or("", |at| &finished.output[at..]);
    let json: Value =
        serde_json::from_str(json).map_err(|error| Skip::Failed(format!("fio: {error}")))?;
    let job = &json["jobs"][0][kind];
    let read = |value: &Value| {
        value
            .as_f64()
            .ok_or_else(|| Skip::Failed("fio prints no such figure".into()))
    };
    // Only there if each write was followed by a sync.
    let sync_ns = json["jobs"][0]["sync"]["lat_ns"]["percentile"]["50.000000"]
        .as_f64()
        .unwrap_or(0.0);
    Ok(Disk {
        per_second: read(&job["iops"])?,
        p50_us: (read(&job["clat_ns"]["percentile"]["50.000000"])? + sync_ns) / 1000.0,
    })
}

/// Durable 4 KiB writes, one at a time, into a file that is written and synced already, as a
/// recycled segment is; in the faster of the two ways, `O_DSYNC` and `fdatasync` after each.
pub fn durable_writes(context: &Context, time: Duration) -> Result<Disk, Skip> {
    let dir = context.temp_dir("fio")?;
    let file = format!("--filename={}", dir.path().join("fio").display());
    let base = [&file, "--rw=write", "--size=64m", "--ioengine=sync"];
    let lay_out = [&base[..], &["--bs=1m", "--fallocate=none", "--end_fsync=1"]].concat();
    fio(context, "write", &lay_out)?;
    let runtime = format!("--runtime={}", (time.as_secs() / 2).max(1));
    let timed = |how| {
        let flags = [&base[..], &["--bs=4k", how, "--time_based", &runtime]].concat();
        fio(context, "write", &flags)
    };
    let (dsync, datasync) = (timed("--sync=dsync")?, timed("--fdatasync=1")?);
    Ok(if dsync.p50_us <= datasync.p50_us {
        dsync
    } else {
        datasync
    })
}

/// Reads the files of a folder once, from one end to the other, so that the caches behind the disk, of a
/// hypervisor say, hold of them what they can.
pub fn read_through(context: &Context, dir: &Path) -> Result<(), Skip> {
    let dir = format!("--opendir={}", dir.display());
    let flags = [
        &dir,
        "--readonly",
        "--rw=read",
        "--bs=1m",
        "--ioengine=sync",
    ];
    fio(context, "read", &flags).map(drop)
}

/// Random 4 KiB reads of the files of a folder, 32 at a time.
pub fn random_reads(context: &Context, dir: &Path, time: Duration) -> Result<Disk, Skip> {
    let dir = format!("--opendir={}", dir.display());
    let runtime = format!("--runtime={}", time.as_secs().max(1));
    fio(
        context,
        "read",
        &[
            &dir,
            "--readonly",
            "--rw=randread",
            "--file_service_type=random",
            "--bs=4k",
            "--ioengine=io_uring",
            "--iodepth=32",
            "--norandommap",
            "--time_based",
            &runtime,
        ],
    )
}

/// The median of a bare round trip over the loopback between the two CPUs, in microseconds: 64
/// bytes there, 64 back, both ends waiting in the kernel.
pub fn round_trip_us(context: &Context, time: Duration) -> Result<f64, Skip> {
    let failed = |error: std::io::Error| Skip::Failed(format!("the loopback: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let cpu = context.server_cpu;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set)?;
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut bytes = [0; 64];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(addr).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let mut bytes = [1; 64];
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let sent = Instant::now();
        stream.write_all(&bytes).map_err(failed)?;
        stream.read_exact(&mut bytes).map_err(failed)?;
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    drop(stream);
    let _ = echo.join();
    Ok(median(&times))
}
