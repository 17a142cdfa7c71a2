//! How evenly work is spread.

/// Jain's fairness index (Jain, Chiu, Hawe 1984): 1 is even, 1/n is all on one of n. Rounded to four places; 0 when
/// nothing was counted.
pub fn jain(counts: impl IntoIterator<Item = u64>) -> f64 {
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for count in counts {
        let count = count as f64;
        n += 1.0;
        sum += count;
        squares += count * count;
    }
    if squares == 0.0 {
        return 0.0;
    }
    (sum * sum / (n * squares) * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::jain;

    #[test]
    fn it_is_one_when_even_and_one_over_n_when_all_is_on_one() {
        assert_eq!(jain([1000, 1000, 1000, 1000]), 1.0);
        assert_eq!(jain([4000, 0, 0, 0]), 0.25);
        assert_eq!(jain([0, 0]), 0.0);
        assert_eq!(jain([]), 0.0);
    }
}
