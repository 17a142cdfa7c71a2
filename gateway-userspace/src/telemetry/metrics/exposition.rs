//! The Prometheus text format 0.0.4.

use std::fmt::{Display, Write};

/// What a family counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A text under construction.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: &'static str,
}

/// Label names and values.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Exposition {
    /// Begins a family; samples follow.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> &mut Self {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.family = name;
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        self
    }

    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.line("", labels, value);
        self
    }

    /// A whole histogram. `bounds` and `counts` in the family's unit; the last count is above every bound.
    pub fn histogram(&mut self, labels: Labels<'_>, bounds: impl Iterator<Item = f64>, counts: &[u64], sum: f64) {
        let mut cumulative = 0;
        let bounds = bounds.map(|bound| bound.to_string()).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            cumulative += count;
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            self.line("_bucket", &labels, cumulative);
        }
        self.line("_sum", labels, sum);
        self.line("_count", labels, cumulative);
    }

    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            self.escaped(value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.put(format_args!(" {value}\n"));
    }

    fn escaped(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                c => self.text.push(c),
            }
        }
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut out = Exposition::default();
        out.family("it", Kind::Gauge, "A thing.")
            .sample(&[("a", "x\"\\\ny"), ("b", "")], 1.5);
        assert_eq!(
            out.finish(),
            "# HELP it A thing.\n# TYPE it gauge\nit{a=\"x\\\"\\\\\\ny\",b=\"\"} 1.5\n"
        );
    }

    #[test]
    fn a_histogram_is_cumulative() {
        let mut out = Exposition::default();
        out.family("h", Kind::Histogram, "Times.")
            .histogram(&[], [0.5, 1.0].into_iter(), &[1, 2, 3], 4.5);
        let text = out.finish();
        assert!(text.ends_with(
            "h_bucket{le=\"0.5\"} 1\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 6\nh_sum 4.5\nh_count 6\n"
        ));
    }
}
