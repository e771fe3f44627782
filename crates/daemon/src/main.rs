//! The `tidegate` program. All its code is in the library of this crate.

fn main() -> std::process::ExitCode {
    tidegate_daemon::cli::main()
}
