//! Samples -> medians, and whether two sets of them differ. In: seconds. Out: numbers and a word. Must never: judge by
//! medians alone: on a busy machine they wander by themselves.

/// How a change is told from noise.
pub const HOW: &str =
    "a change: the Mann-Whitney test gives chance less than 1 in 100, and the medians differ by 2 % or more";

/// How likely chance may be.
const CHANCE_MAX: f64 = 0.01;
/// What is smaller matters to nobody.
const CHANGE_MIN: f64 = 0.02;

/// First quartile, median, third quartile, by linear interpolation; of nothing, zeros.
pub fn quartiles(samples: &[f64]) -> (f64, f64, f64) {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * sorted.len().saturating_sub(1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        match (sorted.get(low), sorted.get(high)) {
            (Some(low), Some(high)) => low + (high - low) * place.fract(),
            _ => 0.0,
        }
    };
    (at(0.25), at(0.5), at(0.75))
}

/// `slower by N %`, `quicker by N %`, or `noise`.
pub fn verdict(then: &[f64], now: &[f64]) -> String {
    let (before, after) = (quartiles(then).1, quartiles(now).1);
    let change = if before > 0.0 { after / before - 1.0 } else { 0.0 };
    let chance = chance(then, now);
    if chance < CHANCE_MAX && change.abs() >= CHANGE_MIN {
        let word = if change > 0.0 { "slower" } else { "quicker" };
        return format!("{word} by {:.0} %", change.abs() * 100.0);
    }
    format!("noise ({:+.0} %, chance {chance:.2})", change * 100.0)
}

/// How likely chance alone sets two sets of samples so far apart: the two-sided Mann-Whitney test, by the normal
/// approximation with its corrections for ties and continuity.
fn chance(one: &[f64], other: &[f64]) -> f64 {
    let (count_one, count_other) = (one.len() as f64, other.len() as f64);
    let total = count_one + count_other;
    let mut all: Vec<(f64, bool)> =
        one.iter().map(|&value| (value, true)).chain(other.iter().map(|&value| (value, false))).collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (mut rank_sum, mut ties, mut begin) = (0.0, 0.0, 0);
    while begin < all.len() {
        let end = begin + all[begin..].iter().take_while(|(value, _)| *value == all[begin].0).count();
        let count = (end - begin) as f64;
        let rank = (begin + end + 1) as f64 / 2.0;
        rank_sum += rank * all[begin..end].iter().filter(|(_, of_one)| *of_one).count() as f64;
        ties += count.powi(3) - count;
        begin = end;
    }
    let statistic = rank_sum - count_one * (count_one + 1.0) / 2.0;
    let mean = count_one * count_other / 2.0;
    let spread = (count_one * count_other / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)))).sqrt();
    if spread.is_nan() || spread <= 0.0 {
        return 1.0;
    }
    let distance = ((statistic - mean).abs() - 0.5).max(0.0) / spread;
    2.0 * upper_tail(distance)
}

/// How much of the normal distribution lies above `z` (Abramowitz and Stegun, 26.2.17).
fn upper_tail(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = series.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated() {
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0, 5.0]), (2.0, 3.0, 4.0));
        assert_eq!(quartiles(&[1.0, 2.0]).1, 1.5);
        assert_eq!(quartiles(&[]), (0.0, 0.0, 0.0));
    }

    #[test]
    fn the_normal_tail_is_that_of_tables() {
        for (z, expected) in [(0.0, 0.5), (1.0, 0.158_655), (1.96, 0.024_998), (3.0, 0.001_350)] {
            assert!((upper_tail(z) - expected).abs() < 1e-5, "{z}");
        }
    }

    #[test]
    fn chance_is_that_of_the_test() {
        // By hand: U = 0, mean 12.5, spread sqrt(25 * 11 / 12) = 4.787, z = 12 / 4.787 = 2.5067, twice the tail 0.0122.
        let (low, high) = ([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]);
        assert!((chance(&low, &high) - 0.0122).abs() < 2e-4);
        assert_eq!(chance(&[1.0; 5], &[1.0; 5]), 1.0);
        assert_eq!(chance(&[], &[1.0]), 1.0);
    }

    #[test]
    fn a_shift_is_a_change_and_wandering_is_noise() {
        let base: Vec<f64> = (0..12).map(|step| 1.0 + f64::from(step) / 200.0).collect();
        let shifted: Vec<f64> = base.iter().map(|value| value * 1.2).collect();
        assert_eq!(verdict(&base, &shifted), "slower by 20 %");
        assert_eq!(verdict(&shifted, &base), "quicker by 17 %");
        let wandering: Vec<f64> = base.iter().rev().map(|value| value + 0.01).collect();
        assert!(verdict(&base, &wandering).starts_with("noise"), "{}", verdict(&base, &wandering));
        // Beyond doubt, and yet too small to matter.
        let near: Vec<f64> = base.iter().map(|value| value * 1.015).collect();
        let many = |samples: &[f64]| samples.repeat(20);
        assert!(verdict(&many(&base), &many(&near)).starts_with("noise"));
    }
}
