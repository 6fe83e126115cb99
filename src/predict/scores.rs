//! Running grades of the three questions, beside their baselines.
//!
//! **Invariant:** sums only, of bounded size: what they are made from is not kept. Where nothing has
//! been graded a figure is `null`, never 0.

use serde::Serialize;

use super::drift::Drift;

/// Grades of everything that was predicted in this session.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    pub laptime: LapTimeScores,
    pub race: RaceScores,
    pub pit: PitScores,
    /// How the models stand of late.
    pub drift: Drift,
}

/// The next lap.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LapTimeScores {
    /// Laps that proved clean, by sectors known when predicted (0, 1, 2).
    pub clean: [Errors; 3],
    /// Every timed lap, in-laps and surprises too.
    pub all: [Errors; 3],
    /// The floor on the same clean laps; where no model speaks, this is what [`LapTimeScores::clean`] is.
    pub floor: [Errors; 3],
    /// Predictions of those clean laps that a trained model made.
    pub modelled: u64,
    /// The last clean lap, with known sectors in place of its own, on the same clean laps.
    pub baseline: [Errors; 3],
    /// Predictions of laps that were never timed, or still open when the session ended.
    pub ungraded: u64,
}

/// Errors of a quantity in seconds: prediction less truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(into = "ErrorsShown")]
pub struct Errors {
    pub count: u64,
    abs: f64,
    squared: f64,
    signed: f64,
    covered: u64,
    with_interval: u64,
    near: u64,
    pinball: f64,
}

/// Close enough to count as right (s).
const NEAR_S: f64 = 0.2;

impl Errors {
    /// A prediction's median against the truth (s).
    pub fn add(&mut self, predicted: f64, truth: f64) {
        let error = predicted - truth;
        self.count += 1;
        self.abs += error.abs();
        self.squared += error * error;
        self.signed += error;
        self.near += u64::from(error.abs() < NEAR_S);
    }

    /// The interval of the same prediction: P10, P50, P90 (s).
    pub fn add_interval(&mut self, quantiles: [f64; 3], truth: f64) {
        self.with_interval += 1;
        self.covered += u64::from(quantiles[0] <= truth && truth <= quantiles[2]);
        let levels = [0.1, 0.5, 0.9];
        let losses = quantiles.iter().zip(levels).map(|(q, level)| {
            let short = truth - q;
            if short >= 0.0 {
                level * short
            } else {
                (level - 1.0) * short
            }
        });
        self.pinball += losses.sum::<f64>() / 3.0;
    }

    /// Takes in the errors of another lot.
    pub fn merge(&mut self, other: &Errors) {
        self.count += other.count;
        self.abs += other.abs;
        self.squared += other.squared;
        self.signed += other.signed;
        self.covered += other.covered;
        self.with_interval += other.with_interval;
        self.near += other.near;
        self.pinball += other.pinball;
    }

    fn per(&self, sum: f64) -> Option<f64> {
        (self.count > 0).then(|| sum / self.count as f64)
    }

    /// Mean absolute error (s).
    pub fn mae(&self) -> Option<f64> {
        self.per(self.abs)
    }

    /// Root of the mean squared error (s).
    pub fn rmse(&self) -> Option<f64> {
        self.per(self.squared).map(f64::sqrt)
    }

    /// Mean of prediction less truth (s).
    pub fn bias(&self) -> Option<f64> {
        self.per(self.signed)
    }

    /// Share within 0.2 s.
    pub fn within_200_ms(&self) -> Option<f64> {
        self.per(self.near as f64)
    }

    /// Share of truths between P10 and P90.
    pub fn coverage_80(&self) -> Option<f64> {
        (self.with_interval > 0).then(|| self.covered as f64 / self.with_interval as f64)
    }

    /// Mean pinball loss over P10, P50 and P90 (s).
    pub fn pinball(&self) -> Option<f64> {
        (self.with_interval > 0).then(|| self.pinball / self.with_interval as f64)
    }
}

#[derive(Serialize)]
struct ErrorsShown {
    count: u64,
    mae: Option<f64>,
    rmse: Option<f64>,
    bias: Option<f64>,
    within_200_ms: Option<f64>,
    coverage_80: Option<f64>,
    pinball: Option<f64>,
}

impl From<Errors> for ErrorsShown {
    fn from(e: Errors) -> Self {
        ErrorsShown {
            count: e.count,
            mae: e.mae(),
            rmse: e.rmse(),
            bias: e.bias(),
            within_200_ms: e.within_200_ms(),
            coverage_80: e.coverage_80(),
            pinball: e.pinball(),
        }
    }
}

/// The finishing order, for the predictions made at 0, 25, 50 and 75 % of the distance.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RaceScores {
    pub at: [OrderScores; 4],
    pub ungraded: u64,
}

/// One moment of the race, graded at the flag.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OrderScores {
    pub model: OrderScore,
    /// The order on track at that moment, taken as certain.
    pub current_order: OrderScore,
    /// The grid, taken as certain.
    pub grid: OrderScore,
}

/// Sums over races; each race counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(into = "OrderShown")]
pub struct OrderScore {
    pub races: u64,
    overlap: f64,
    cars: u64,
    brier_top3: f64,
    log_loss_top3: f64,
    brier_win: f64,
    log_loss_win: f64,
}

/// A certain prediction that is wrong costs ln of this, not infinity.
const LEAST_P: f64 = 1e-3;

impl OrderScore {
    /// Grades one race: per car, probability of winning and of the podium, and the true position
    /// from 1. The predicted podium is the three with the highest probability of it.
    pub fn add(&mut self, cars: &[(f64, f64, usize)]) {
        let mut ranked: Vec<&(f64, f64, usize)> = cars.iter().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        self.races += 1;
        self.overlap += ranked.iter().take(3).filter(|c| c.2 <= 3).count() as f64;
        for (p_win, p_top3, position) in cars {
            self.cars += 1;
            let (win, top3) = (*position == 1, *position <= 3);
            self.brier_win += brier(*p_win, win);
            self.log_loss_win += log_loss(*p_win, win);
            self.brier_top3 += brier(*p_top3, top3);
            self.log_loss_top3 += log_loss(*p_top3, top3);
        }
    }

    /// Of the three on the podium, how many were named: mean over races.
    pub fn podium_overlap(&self) -> Option<f64> {
        (self.races > 0).then(|| self.overlap / self.races as f64)
    }

    fn per_car(&self, sum: f64) -> Option<f64> {
        (self.cars > 0).then(|| sum / self.cars as f64)
    }

    pub fn brier_top3(&self) -> Option<f64> {
        self.per_car(self.brier_top3)
    }

    pub fn log_loss_top3(&self) -> Option<f64> {
        self.per_car(self.log_loss_top3)
    }

    pub fn brier_win(&self) -> Option<f64> {
        self.per_car(self.brier_win)
    }

    pub fn log_loss_win(&self) -> Option<f64> {
        self.per_car(self.log_loss_win)
    }
}

#[derive(Serialize)]
struct OrderShown {
    races: u64,
    podium_overlap: Option<f64>,
    brier_top3: Option<f64>,
    log_loss_top3: Option<f64>,
    brier_win: Option<f64>,
    log_loss_win: Option<f64>,
}

impl From<OrderScore> for OrderShown {
    fn from(s: OrderScore) -> Self {
        OrderShown {
            races: s.races,
            podium_overlap: s.podium_overlap(),
            brier_top3: s.brier_top3(),
            log_loss_top3: s.log_loss_top3(),
            brier_win: s.brier_win(),
            log_loss_win: s.log_loss_win(),
        }
    }
}

/// The next stop.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PitScores {
    pub within_2: Hits,
    /// The fixed plan: a stop is due when the tyres reach the typical stint here.
    pub fixed_plan: Hits,
    pub compounds_named: u64,
    pub compounds_right: u64,
    /// Predictions still open when the session ended, or overtaken by a red flag.
    pub ungraded: u64,
}

/// Yes or no: "boxes within two laps".
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(into = "HitsShown")]
pub struct Hits {
    true_positive: u64,
    false_positive: u64,
    false_negative: u64,
    true_negative: u64,
    brier: f64,
}

impl Hits {
    /// A probability, whether it counts as a yes, and the truth.
    pub fn add(&mut self, p: f64, says_yes: bool, truth: bool) {
        match (says_yes, truth) {
            (true, true) => self.true_positive += 1,
            (true, false) => self.false_positive += 1,
            (false, true) => self.false_negative += 1,
            (false, false) => self.true_negative += 1,
        }
        self.brier += brier(p, truth);
    }

    pub fn count(&self) -> u64 {
        self.true_positive + self.false_positive + self.false_negative + self.true_negative
    }

    /// Of the yeses, the share that came true.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.true_positive, self.true_positive + self.false_positive)
    }

    /// Of the stops, the share that was foreseen.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.true_positive, self.true_positive + self.false_negative)
    }

    /// 2 TP / (2 TP + FP + FN).
    pub fn f1(&self) -> Option<f64> {
        let twice = 2 * self.true_positive;
        ratio(twice, twice + self.false_positive + self.false_negative)
    }

    pub fn brier(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.brier / self.count() as f64)
    }

    /// Share of the predictions that a stop followed.
    pub fn rate(&self) -> Option<f64> {
        ratio(self.true_positive + self.false_negative, self.count())
    }
}

#[derive(Serialize)]
struct HitsShown {
    count: u64,
    precision: Option<f64>,
    recall: Option<f64>,
    f1: Option<f64>,
    brier: Option<f64>,
    rate: Option<f64>,
}

impl From<Hits> for HitsShown {
    fn from(h: Hits) -> Self {
        HitsShown {
            count: h.count(),
            precision: h.precision(),
            recall: h.recall(),
            f1: h.f1(),
            brier: h.brier(),
            rate: h.rate(),
        }
    }
}

fn ratio(a: u64, b: u64) -> Option<f64> {
    (b > 0).then(|| a as f64 / b as f64)
}

fn brier(p: f64, truth: bool) -> f64 {
    let off = if truth { 1.0 - p } else { p };
    off * off
}

fn log_loss(p: f64, truth: bool) -> f64 {
    -ln(if truth { p } else { 1.0 - p }.clamp(LEAST_P, 1.0))
}

/// Natural logarithm for 0 < x ≤ 1, from + − × ÷ alone, so that grades are the same on every machine:
/// halvings down to [1, 2), then 2 atanh((m − 1) / (m + 1)).
pub(super) fn ln(x: f64) -> f64 {
    let (mut m, mut doublings) = (x.max(f64::MIN_POSITIVE), 0.0);
    while m < 1.0 {
        m *= 2.0;
        doublings += 1.0;
    }
    let u = (m - 1.0) / (m + 1.0);
    let (mut term, mut sum) = (u, 0.0);
    for k in 0..30 {
        sum += term / f64::from(2 * k + 1);
        term *= u * u;
    }
    2.0 * sum - doublings * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_agrees_with_the_library() {
        for x in [1e-3, 0.01, 0.1, 0.25, 0.5, 0.7, 0.999, 1.0] {
            assert!((ln(x) - x.ln()).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn errors_by_hand() {
        let mut e = Errors::default();
        assert_eq!(e.mae(), None);
        e.add(90.0, 90.1);
        e.add_interval([89.5, 90.0, 90.5], 90.1);
        e.add(92.0, 90.0);
        e.add_interval([91.5, 92.0, 92.5], 90.0);
        let near = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-9, "{a:?} {b}");
        near(e.mae(), 1.05);
        near(e.bias(), 0.95);
        near(e.rmse(), (4.01f64 / 2.0).sqrt());
        near(e.coverage_80(), 0.5);
        near(e.within_200_ms(), 0.5);
        // (0.06 + 0.05 + 0.04) / 3 and (1.35 + 1.0 + 0.25) / 3, their mean.
        near(e.pinball(), (0.15 / 3.0 + 2.6 / 3.0) / 2.0);
    }

    #[test]
    fn order_and_hits_by_hand() {
        let mut s = OrderScore::default();
        s.add(&[(1.0, 1.0, 1), (0.0, 1.0, 4), (0.0, 1.0, 2), (0.0, 0.0, 3)]);
        assert_eq!(s.podium_overlap(), Some(2.0));
        assert_eq!(s.brier_top3(), Some(0.5));
        assert_eq!(s.brier_win(), Some(0.0));
        let wrong = -(LEAST_P.ln()) / 2.0;
        assert!((s.log_loss_top3().unwrap() - wrong).abs() < 1e-9);
        let mut h = Hits::default();
        h.add(0.9, true, true);
        h.add(0.6, true, false);
        h.add(0.1, false, true);
        h.add(0.1, false, false);
        assert_eq!(
            (h.precision(), h.recall(), h.f1()),
            (Some(0.5), Some(0.5), Some(0.5))
        );
        assert!((h.brier().unwrap() - (0.01 + 0.36 + 0.81 + 0.01) / 4.0).abs() < 1e-12);
    }
}
