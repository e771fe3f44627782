//! The cost of the daemon as a whole, on a real broker: its metrics, its idle pools, its event streams.
//!
//!     scripts/with-broker cargo bench --bench daemon [-- metrics|idle|pages|streams]
//!
//! It starts the built program. Processor time is that of the program's processes (user and system), without the broker's
//! and the jobs' share. Each figure stands beside the same work without tidegate, or beside the daemon without the load, in
//! the same run.

mod broker;
mod daemon;
mod idle;
mod load;
mod metrics;
mod pages;
mod streams;

fn main() {
    // `cargo bench` passes `--bench`. The other arguments select measurements.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let wants = |name: &str| chosen.is_empty() || chosen.iter().any(|arg| arg == name);
    let Ok(url) = std::env::var("AMQP_URL") else {
        eprintln!("AMQP_URL is not set: run `scripts/with-broker cargo bench`");
        std::process::exit(69);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        if wants("metrics") {
            metrics::measure(&url).await;
        }
        if wants("idle") {
            idle::measure(&url).await;
        }
        if wants("pages") {
            pages::measure(&url).await;
        }
        if wants("streams") {
            streams::measure(&url).await;
        }
    });
}

/// The value that `share` of the values do not exceed. Sorts them.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    values[(last as f64 * share).round() as usize]
}
