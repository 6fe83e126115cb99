//! Races side by side: one core a race, the figures in the order of the races whatever the number of cores.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::prelude::*;

/// How often the bar is drawn anew, so that a long race does not look like a standstill.
const TICK: Duration = Duration::from_millis(500);

/// What `each` makes of every item, in their order. Says on stderr, where that is a terminal, how far it is.
pub(in crate::cli) fn side_by_side<I: Sync, T: Send>(
    what: &str,
    items: &[I],
    each: impl Fn(&I) -> T + Sync,
) -> Vec<T> {
    let bar = bar(what, items.len());
    // One at a time: races differ in length, and there are few of them for each core.
    let made = items
        .par_iter()
        .with_max_len(1)
        .map(|item| {
            let made = each(item);
            bar.inc(1);
            made
        })
        .collect();
    bar.finish_and_clear();
    made
}

fn bar(what: &str, len: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        let made = side_by_side("test", &items, |n| {
            // The first take longest.
            std::thread::sleep(Duration::from_micros(u64::from(100 - n)));
            n * 2
        });
        assert_eq!(made, items.iter().map(|n| n * 2).collect::<Vec<_>>());
    }
}
