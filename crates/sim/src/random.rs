//! Random numbers: which stream each draw comes from.

use rand::SeedableRng as _;
use rand_xoshiro::Xoshiro256PlusPlus;

/// The generator of all streams. Its numbers are the same on every machine.
pub(crate) type Stream = Xoshiro256PlusPlus;

/// Odd constants that make the random streams different.
const OF_JOBS: u64 = 0x9e37_79b9_7f4a_7c15;
const OF_ATTEMPTS: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// The stream of the arrival times.
pub(crate) fn of_arrivals(seed: u64) -> Stream {
    Stream::seed_from_u64(seed)
}

/// The stream of one attempt of a job. It does not depend on when the attempt starts, or on which worker has it.
pub(crate) fn of_attempt(seed: u64, job: u64, attempt: u32) -> Stream {
    // The generator mixes its seed, so neighbouring seeds give unrelated streams.
    let job = job.wrapping_add(1).wrapping_mul(OF_JOBS);
    let attempt = u64::from(attempt).wrapping_mul(OF_ATTEMPTS);
    Stream::seed_from_u64(seed.rotate_left(17) ^ job ^ attempt)
}
