//! The text that Prometheus reads: families with a type and a help line, and their samples.

use std::fmt::Write;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up.
    Counter,
    /// Counts by classes.
    Histogram,
}

/// The text so far.
#[derive(Debug)]
pub struct Text {
    prefix: &'static str,
    out: String,
    name: String,
}

impl Text {
    /// An empty one, in which names begin with this.
    pub fn new(prefix: &'static str) -> Text {
        Text { prefix, out: String::new(), name: String::new() }
    }

    /// Begins a family.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        self.family_of(self.prefix, name, kind, help);
    }

    /// The same with another prefix.
    pub fn family_of(&mut self, prefix: &str, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        self.name = format!("{prefix}{name}");
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "# TYPE {} {kind}\n# HELP {} {help}", self.name, self.name);
    }

    /// A sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.sample_of("", labels, value);
    }

    /// A sample whose name goes on with `suffix`.
    pub fn sample_of(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.out.push_str(&self.name);
        self.out.push_str(suffix);
        if !labels.is_empty() {
            self.out.push('{');
            for (at, (name, value)) in labels.iter().enumerate() {
                if at > 0 {
                    self.out.push(',');
                }
                self.out.push_str(name);
                self.out.push_str("=\"");
                value.chars().for_each(|c| match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                });
                self.out.push('"');
            }
            self.out.push('}');
        }
        let _ = match value.fract() == 0.0 && value.abs() < 1e15 {
            _ if value == f64::INFINITY => writeln!(self.out, " +Inf"),
            true => writeln!(self.out, " {}", value as i64),
            false => writeln!(self.out, " {value}"),
        };
    }

    /// A family with a single sample.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// The samples of a histogram: the upper ends of its classes as they are written, how many are in each and above
    /// the last, and the sum of all.
    pub fn histogram(&mut self, ends: &[&str], counts: &[u64], sum: f64) {
        let mut below = 0;
        for (end, count) in ends.iter().chain([&"+Inf"]).zip(counts) {
            below += count;
            self.sample_of("_bucket", &[("le", end)], below as f64);
        }
        self.sample_of("_count", &[], below as f64);
        self.sample_of("_sum", &[], sum);
    }

    /// All of it.
    pub fn done(self) -> String {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_whole_numbers_have_no_point() {
        let mut text = Text::new("a_");
        text.family("b", Kind::Gauge, "Help");
        text.sample(&[("q", "x\"\\\n")], 3.0);
        text.sample(&[], 0.5);

        let expected = "# TYPE a_b gauge\n# HELP a_b Help\na_b{q=\"x\\\"\\\\\\n\"} 3\na_b 0.5\n";
        assert_eq!(text.done(), expected);
    }

    #[test]
    fn the_classes_of_a_histogram_add_up() {
        let mut text = Text::new("");
        text.family("h", Kind::Histogram, "Help");
        text.histogram(&["1", "2"], &[4, 0, 3], 9.5);

        let lines =
            "h_bucket{le=\"1\"} 4\nh_bucket{le=\"2\"} 4\nh_bucket{le=\"+Inf\"} 7\nh_count 7\nh_sum 9.5\n";
        assert!(text.done().ends_with(lines));
    }
}
