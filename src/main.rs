//! The `tidegate` program: everything is in the library.

fn main() -> std::process::ExitCode {
    tidegate::surface::cli::main()
}
