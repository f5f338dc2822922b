//! An explanation as one picture for a terminal: the way from top to bottom, a cross where it is broken, and what to do.

use super::explanation::{Explanation, Finding, Hop, HopKind, NicPath, Severity, Traffic};

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Width of the terminal in columns.
    pub width: usize,
    /// Whether the terminal takes colours.
    pub has_colour: bool,
    /// Whether it takes more than ASCII.
    pub has_unicode: bool,
}

/// What the lines are drawn with.
struct Pen {
    top: &'static str,
    through: &'static str,
    side: &'static str,
    bottom: &'static str,
    line: &'static str,
    broken: &'static str,
    doubtful: &'static str,
    between: &'static str,
    border: &'static str,
    to_guest: &'static str,
    from_guest: &'static str,
}

const FINE: Pen = Pen {
    top: "┌",
    through: "├",
    side: "│",
    bottom: "└",
    line: "─",
    broken: "✗",
    doubtful: "!",
    between: "\u{a0}· ",
    border: "╌",
    to_guest: "↓",
    from_guest: "↑",
};
const PLAIN: Pen = Pen {
    top: "+",
    through: "+",
    side: "|",
    bottom: "+",
    line: "-",
    broken: "x",
    doubtful: "!",
    between: ", ",
    border: "-",
    to_guest: "to guest",
    from_guest: "from guest",
};

/// Narrower than this a picture is no help.
const LEAST_WIDTH: usize = 40;

/// A space at which no line is broken.
const GLUE: &str = "\u{a0}";

/// Draws an explanation as text; lines fit the width, which is raised to the least possible.
pub fn picture(explanation: &Explanation, style: Style) -> String {
    let pen = if style.has_unicode { &FINE } else { &PLAIN };
    let mut canvas = Canvas { style: Style { width: style.width.max(LEAST_WIDTH), ..style }, lines: Vec::new() };
    let reason = explanation.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let node = explanation.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    let title = format!("{}/{} is {}{reason}{node}", explanation.namespace, explanation.name, explanation.status);
    canvas.text("", "", &title, None);
    for nic in &explanation.nics {
        draw(&mut canvas, pen, explanation, nic);
    }
    canvas.lines.push(String::new());
    if explanation.findings.is_empty() {
        canvas.text("", "", "Nothing is wrong.", None);
    }
    for finding in &explanation.findings {
        tell(&mut canvas, pen, finding);
    }
    canvas.lines.join("\n") + "\n"
}

fn draw(canvas: &mut Canvas, pen: &Pen, explanation: &Explanation, nic: &NicPath) {
    canvas.lines.push(String::new());
    let binding = format!("{:?}", nic.binding).to_lowercase();
    canvas.text(
        "",
        "",
        &format!("interface {}{}{binding}{}{}", nic.name, pen.between, pen.between, nic.pod_interface),
        None,
    );
    let arm =
        |hop: &Hop| if hop.kind == HopKind::Service { format!("{}{} ", pen.line, pen.line) } else { String::new() };
    let width = |hop: &Hop| arm(hop).chars().count() + hop.name.chars().count();
    let name_width = nic.hops.iter().map(width).max().unwrap_or(0);
    let last = nic.hops.len().saturating_sub(1);
    let mut is_inside = false;
    for (index, hop) in nic.hops.iter().enumerate() {
        if hop.kind.is_inside() && !is_inside {
            is_inside = true;
            let label = format!("{} {} ", pen.border.repeat(2), explanation.netns);
            let rest = canvas.style.width.min(64).saturating_sub(label.chars().count() + 4);
            canvas.push(&format!("  {} {label}{}", pen.side, pen.border.repeat(rest)), None);
        }
        let worst = worst(explanation, nic, hop);
        let joint = match (index, hop.kind) {
            (0, _) => pen.top,
            (_, HopKind::Service) => pen.through,
            (index, _) if index == last => pen.bottom,
            _ => pen.side,
        };
        let sign = match worst {
            Some(Severity::Error) => pen.broken,
            Some(Severity::Warning) => pen.doubtful,
            None => joint,
        };
        // Packets do not pass through the launcher: it is drawn next to the path.
        let name = format!("{}{}", arm(hop), hop.name);
        let first = format!("  {sign} {name:name_width$}  ");
        let indent = first.chars().count() - 4;
        let following = format!("  {} {:indent$}", if index == last { " " } else { pen.side }, "");
        let facts: Vec<_> = facts(hop, pen).iter().map(|fact| fact.replace(' ', GLUE)).collect();
        canvas.text(&first, &following, &facts.join(pen.between), worst);
    }
}

/// The gravest finding at a hop.
fn worst(explanation: &Explanation, nic: &NicPath, hop: &Hop) -> Option<Severity> {
    let here =
        |finding: &&Finding| finding.hop == hop.name && finding.nic.as_ref().is_none_or(|name| *name == nic.name);
    explanation.findings.iter().filter(here).map(|finding| finding.severity).min()
}

/// What is to be said at a hop, in order.
fn facts(hop: &Hop, pen: &Pen) -> Vec<String> {
    let mut words: Vec<String> = hop.state.iter().cloned().collect();
    words.extend(hop.mtu_bytes.map(|mtu| format!("MTU {mtu}")));
    if hop.kind != HopKind::Guest {
        words.extend(hop.addresses.iter().cloned());
    }
    words.extend(hop.notes.iter().cloned());
    words.extend(hop.traffic.iter().flat_map(|traffic| passed(traffic, pen)));
    let mut about = "";
    for counter in &hop.counters {
        let words_of = counter.name.split_once(' ').filter(|(protocol, _)| protocol.starts_with("DHCP"));
        match (words.last_mut(), words_of) {
            // Counters of one protocol share the line of the first.
            (Some(last), Some((protocol, what))) if protocol == about => {
                last.push_str(&format!(", {what} {}", counter.count));
            }
            _ => words.push(format!("{} {}", counter.name, counter.count)),
        }
        about = words_of.map_or("", |(protocol, _)| protocol);
    }
    words
}

fn passed(traffic: &Traffic, pen: &Pen) -> Vec<String> {
    let way = |name: &str, packets: u64, bytes: u64| format!("{name} {packets} packets {}", size(bytes));
    let mut words = vec![
        way(pen.to_guest, traffic.to_guest_packets, traffic.to_guest_bytes),
        way(pen.from_guest, traffic.from_guest_packets, traffic.from_guest_bytes),
    ];
    if traffic.dropped_packets > 0 {
        words.push(format!("dropped {}", traffic.dropped_packets));
    }
    words
}

fn tell(canvas: &mut Canvas, pen: &Pen, finding: &Finding) {
    let sign = if finding.severity == Severity::Error { pen.broken } else { pen.doubtful };
    let code = serde_json::to_value(finding.code).unwrap_or_default();
    let code = code.as_str().unwrap_or_default();
    let nic = finding.nic.as_ref().map(|nic| format!(" of interface {nic}")).unwrap_or_default();
    canvas.text(
        &format!("{sign} "),
        "  ",
        &format!("{code} at {}{nic}: {}", finding.hop, finding.seen),
        Some(finding.severity),
    );
    canvas.text("    ", "    ", &finding.consequence, None);
    canvas.text("    ", "    ", &finding.remedy, None);
}

/// Bytes as people read them, in steps of 1000.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes / 100;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS.get(unit).unwrap_or(&""))
}

struct Canvas {
    style: Style,
    lines: Vec<String>,
}

impl Canvas {
    /// Writes text behind `first`, broken where it does not fit; what follows hangs behind `following`.
    fn text(&mut self, first: &str, following: &str, text: &str, worst: Option<Severity>) {
        let mut line = first.to_owned();
        let mut is_empty = true;
        // A word longer than what is left of a whole line has to be broken after all.
        let room = self.style.width.saturating_sub(following.chars().count());
        let words = text
            .split(' ')
            .flat_map(|word| if word.chars().count() > room { word.split(GLUE) } else { word.split("\n") });
        for word in words {
            let length = line.chars().count() + usize::from(!is_empty) + word.chars().count();
            if length > self.style.width && !is_empty {
                self.push(&line, worst);
                line = following.to_owned();
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        self.push(&line, worst);
    }

    fn push(&mut self, line: &str, worst: Option<Severity>) {
        let line = terms::visible(line.trim_end()).replace(GLUE, " ").replace('\t', " ");
        // SGR of ECMA-48: red, yellow.
        let colour = match worst.filter(|_| self.style.has_colour) {
            Some(Severity::Error) => "31",
            Some(Severity::Warning) => "33",
            None => return self.lines.push(line),
        };
        self.lines.push(format!("\u{1b}[{colour}m{line}\u{1b}[0m"));
    }
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
