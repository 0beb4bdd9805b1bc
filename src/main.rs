//! The one binary: server, command line, load generator, inspector.

/// Memory is allocated and freed by the thread of one core: mimalloc keeps it there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ringbolt::cli::main()
}
