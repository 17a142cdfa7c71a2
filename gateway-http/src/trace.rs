//! W3C Trace Context (https://www.w3.org/TR/trace-context/): the field `traceparent`, read and written.

/// Octets of a `traceparent` of version 00.
pub const TRACEPARENT_LEN: usize = 55;

/// What a `traceparent` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceParent {
    /// Never 0.
    pub trace_id: u128,
    /// The caller's span; never 0.
    pub span_id: u64,
    /// The caller recorded its span.
    pub sampled: bool,
}

impl TraceParent {
    /// `None` when it is malformed: the trace then begins anew (section 4.3). A version above 00 is read as far as 00
    /// goes (section 4.3).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(TRACEPARENT_LEN)?;
        let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        let version = hex(&head[..2])?;
        let as_long_as_said = match version {
            0x00 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        if !dashes || !as_long_as_said {
            return None;
        }
        let trace_id = hex(&head[3..35])?;
        let span_id = hex(&head[36..52])? as u64;
        let flags = hex(&head[53..55])?;
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 != 0,
        })
    }

    /// Version 00.
    pub fn text(&self) -> [u8; TRACEPARENT_LEN] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&mut text[3..35], self.trace_id);
        put_hex(&mut text[36..52], u128::from(self.span_id));
        text[54] += u8::from(self.sampled);
        text
    }
}

/// A request's place in its trace, when requests are traced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    pub trace_id: u128,
    /// The client's span, 0 if it sent none.
    pub parent_id: u64,
    /// The span of the request here ...
    pub server_id: u64,
    /// ... and that of its way to the endpoint, which the endpoint's spans follow.
    pub client_id: u64,
    /// Whether the spans are recorded.
    pub sampled: bool,
}

/// Which traces that begin here are recorded.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampling {
    /// Trace ids whose lower 63 bits are below this, as OpenTelemetry's TraceIdRatioBased decides, so that all that
    /// know the id and the ratio decide alike.
    below: u64,
}

impl Sampling {
    /// `ratio` of all traces, 0 to 1.
    pub fn ratio(ratio: f64) -> Self {
        const ALL: f64 = (1u64 << 63) as f64;
        Self {
            below: (ratio.clamp(0.0, 1.0) * ALL) as u64,
        }
    }

    pub fn takes(self, trace_id: u128) -> bool {
        (trace_id as u64 & (u64::MAX >> 1)) < self.below
    }
}

/// Lower-case digits only (section 3.2).
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

fn put_hex(text: &mut [u8], mut value: u128) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_specification_s_example_is_read_and_written() {
        let parent = TraceParent::parse(EXAMPLE.as_bytes()).expect("well formed");
        assert_eq!(parent.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span_id, parent.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(parent.text(), EXAMPLE.as_bytes());
    }

    #[test]
    fn later_versions_may_go_on_and_malformed_ones_begin_a_trace_anew() {
        let later = EXAMPLE.replacen("00", "cc", 1);
        for text in [later.clone(), format!("{later}-what-comes")] {
            assert!(TraceParent::parse(text.as_bytes()).is_some(), "{text}");
        }
        for text in [
            "".to_owned(),
            EXAMPLE[..54].to_owned(),
            format!("{EXAMPLE}-"),
            format!("{later}x"),
            EXAMPLE.replacen("00", "ff", 1),
            EXAMPLE.to_uppercase(),
            EXAMPLE.replace('-', "_"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01".to_owned(),
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn sampling_takes_its_share() {
        let ids = || (0..10_000u128).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let share = |ratio| ids().filter(|id| Sampling::ratio(ratio).takes(*id)).count();
        assert_eq!((share(0.0), share(1.0)), (0, 10_000));
        let tenth = share(0.1);
        assert!((900..1100).contains(&tenth), "{tenth}");
    }
}
