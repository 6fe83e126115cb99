//! Instants as text: what is read is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trackside::record::Time;

fuzz_target!(|text: &str| {
    if let Ok(time) = text.parse::<Time>()
        && time.is_plausible()
    {
        assert_eq!(time.to_string().parse(), Ok(time));
    }
});
