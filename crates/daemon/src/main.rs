//! The `tidegate` program: everything is in the library beside it.

fn main() -> std::process::ExitCode {
    tidegate_daemon::cli::main()
}
