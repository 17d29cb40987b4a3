//! kubectl's JSONPath templates: `{.items[*].metadata.name}`, `{range .items[*]}...{end}`,
//! filters `[?(@.type=="Ready")]`, indexes and slices, `..name`, quoted text.
//! Shape: the "JSONPath Support" page of the Kubernetes documentation.

use serde_json::Value;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Recursive(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Filter {
        path: Vec<Step>,
        test: Option<(Operator, Value)>,
    },
    /// `$`: back to the whole document.
    Root,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Template {
    /// A bare path such as `.metadata.name` is taken as `{.metadata.name}`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let braced = if text.contains('{') { text.to_owned() } else { format!("{{{text}}}") };
        let mut tokens = tokens(&braced)?.into_iter();
        let parts = block(&mut tokens, false)?;
        Ok(Self { parts })
    }

    pub fn render(&self, root: &Value) -> String {
        let mut out = String::new();
        render(&self.parts, root, root, &mut out);
        out
    }
}

enum Token {
    Text(String),
    Expression(String),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        if open > 0 {
            found.push(Token::Text(rest[..open].to_owned()));
        }
        let close = closing(&rest[open..]).ok_or_else(|| format!("unclosed action in {text:?}"))?;
        found.push(Token::Expression(rest[open + 1..open + close].trim().to_owned()));
        rest = &rest[open + close + 1..];
    }
    if !rest.is_empty() {
        found.push(Token::Text(rest.to_owned()));
    }
    Ok(found)
}

/// Where the brace that opens `text` is closed, outside quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            _ => {}
        }
    }
    None
}

fn block(tokens: &mut std::vec::IntoIter<Token>, inside_range: bool) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    while let Some(token) = tokens.next() {
        match token {
            Token::Text(text) => parts.push(Part::Text(text)),
            Token::Expression(e) if e == "end" && inside_range => return Ok(parts),
            Token::Expression(e) if e == "end" => return Err("not in range, nothing to end".into()),
            Token::Expression(e) => match e.strip_prefix("range ") {
                Some(path) => parts.push(Part::Range(path_of(path.trim())?, block(tokens, true)?)),
                None => parts.push(expression(&e)?),
            },
        }
    }
    if inside_range { Err("unterminated range".into()) } else { Ok(parts) }
}

fn expression(text: &str) -> Result<Part, String> {
    match text.chars().next() {
        Some('"' | '\'') => Ok(Part::Text(unquote(text)?)),
        _ => Ok(Part::Path(path_of(text)?)),
    }
}

fn unquote(text: &str) -> Result<String, String> {
    let inner = text.get(1..text.len().saturating_sub(1)).ok_or("unterminated quoted string")?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some(other) => out.push(other),
            None => return Err("unterminated quoted string".into()),
        }
    }
    Ok(out)
}

fn path_of(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text.trim();
    if let Some(after) = rest.strip_prefix('$') {
        steps.push(Step::Root);
        rest = after;
    } else if let Some(after) = rest.strip_prefix('@') {
        rest = after;
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            let (name, after) = field_name(after);
            steps.push(Step::Recursive(name));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            let (name, after) = field_name(after);
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::Wildcard),
                _ => steps.push(Step::Field(name)),
            }
            rest = after;
        } else if rest.starts_with('[') {
            let close =
                bracket_end(rest).ok_or_else(|| format!("unterminated array in {text:?}"))?;
            steps.push(bracket(&rest[1..close])?);
            rest = &rest[close + 1..];
        } else {
            let (name, after) = field_name(rest);
            if name.is_empty() {
                return Err(format!("unrecognized character in {text:?}"));
            }
            steps.push(Step::Field(name));
            rest = after;
        }
    }
    Ok(steps)
}

/// A name up to the next `.` or `[`; `\.` is a dot of the name.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' | ' ' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

fn bracket_end(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Result<Step, String> {
    let inner = inner.trim();
    let number =
        |t: &str| t.trim().parse::<i64>().map_err(|_| format!("invalid array index {t:?}"));
    if inner == "*" {
        return Ok(Step::Wildcard);
    }
    if inner.starts_with(['"', '\'']) {
        return Ok(Step::Field(unquote(inner)?));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        return filter_step(filter);
    }
    if let Some((from, to)) = inner.split_once(':') {
        let side = |t: &str| if t.trim().is_empty() { Ok(None) } else { number(t).map(Some) };
        return Ok(Step::Slice(side(from)?, side(to)?));
    }
    number(inner).map(Step::Index)
}

fn filter_step(text: &str) -> Result<Step, String> {
    use Operator::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
    for (sign, operator) in [
        ("==", Equal),
        ("!=", NotEqual),
        ("<=", LessEqual),
        (">=", GreaterEqual),
        ("<", Less),
        (">", Greater),
    ] {
        if let Some((left, right)) = text.split_once(sign) {
            return Ok(Step::Filter {
                path: path_of(left)?,
                test: Some((operator, literal(right.trim())?)),
            });
        }
    }
    Ok(Step::Filter { path: path_of(text)?, test: None })
}

fn literal(text: &str) -> Result<Value, String> {
    if text.starts_with(['"', '\'']) {
        return unquote(text).map(Value::String);
    }
    serde_json::from_str(text).map_err(|_| format!("unrecognized literal {text:?}"))
}

fn render(parts: &[Part], at: &Value, root: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(path) => {
                let texts: Vec<_> = walk(path, at, root).into_iter().map(text_of).collect();
                out.push_str(&texts.join(" "));
            }
            Part::Range(path, body) => {
                for value in walk(path, at, root) {
                    render(body, value, root, out);
                }
            }
        }
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn walk<'a>(path: &[Step], at: &'a Value, root: &'a Value) -> Vec<&'a Value> {
    let mut here = vec![at];
    for step in path {
        here = here.into_iter().flat_map(|value| take(step, value, root)).collect();
    }
    here
}

fn take<'a>(step: &Step, value: &'a Value, root: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Root => vec![root],
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Wildcard => children(value),
        Step::Recursive(name) => {
            let mut found = Vec::new();
            descend(value, name, &mut found);
            found
        }
        Step::Index(n) => element(value, *n).into_iter().collect(),
        Step::Slice(from, to) => {
            let Some(list) = value.as_array() else { return Vec::new() };
            let clamp = |n: i64| if n < 0 { (list.len() as i64 + n).max(0) } else { n } as usize;
            let to = to.map_or(list.len(), clamp).min(list.len());
            list.get(from.map_or(0, clamp)..to).map(|s| s.iter().collect()).unwrap_or_default()
        }
        Step::Filter { path, test } => {
            let keep = |candidate: &&Value| {
                let found = walk(path, candidate, root);
                match test {
                    None => !found.is_empty(),
                    Some((operator, wanted)) => found.iter().any(|v| compare(v, *operator, wanted)),
                }
            };
            children(value).into_iter().filter(keep).collect()
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn element(value: &Value, n: i64) -> Option<&Value> {
    let list = value.as_array()?;
    let at = if n < 0 { list.len() as i64 + n } else { n };
    list.get(usize::try_from(at).ok()?)
}

fn descend<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    if let Some(hit) = value.get(name) {
        found.push(hit);
    }
    for child in children(value) {
        descend(child, name, found);
    }
}

fn compare(value: &Value, operator: Operator, wanted: &Value) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (value, wanted) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) if a == b => Some(Equal),
        _ => None,
    };
    match operator {
        Operator::Equal => order == Some(Equal),
        Operator::NotEqual => order != Some(Equal),
        Operator::Less => order == Some(Less),
        Operator::LessEqual => matches!(order, Some(Less | Equal)),
        Operator::Greater => order == Some(Greater),
        Operator::GreaterEqual => matches!(order, Some(Greater | Equal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The documentation's own example document and expressions.
    #[test]
    fn documented_expressions() {
        let doc = json!({
            "kind": "List",
            "items": [
                {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
                 "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]}},
                {"kind": "None", "metadata": {"name": "127.0.0.2"},
                 "status": {"capacity": {"cpu": "8"}, "addresses": [
                     {"type": "LegacyHostIP", "address": "127.0.0.2"}, {"type": "another", "address": "127.0.0.3"}]}}
            ],
            "users": [{"name": "myself", "user": {}}, {"name": "e2e", "user": {"username": "admin", "password": "secret"}}]
        });
        for (template, expected) in [
            ("kind is {.kind}", "kind is List"),
            (".kind", "List"),
            ("{['kind']}", "List"),
            ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
            ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
            ("{.users[0].name}", "myself"),
            ("{.users[-1].name}", "e2e"),
            ("{.users[0:1].name}", "myself"),
            (r#"{.users[?(@.name=="e2e")].user.password}"#, "secret"),
            (
                r#"{range .items[*]}[{.metadata.name}, {.status.capacity.cpu}] {end}"#,
                "[127.0.0.1, 4] [127.0.0.2, 8] ",
            ),
            (r#"{range .items[*]}{.metadata.name}{'\t'}{end}"#, "127.0.0.1\t127.0.0.2\t"),
            (r"{.items[*].metadata.labels.kubernetes\.io/hostname}", "127.0.0.1"),
            (r#"{.items[*].status.addresses[?(@.type=="another")].address}"#, "127.0.0.3"),
            ("{.missing}", ""),
        ] {
            let parsed = Template::parse(template).expect(template);
            assert_eq!(parsed.render(&doc), expected, "{template}");
        }
    }

    #[test]
    fn broken_templates_are_errors() {
        for template in ["{.a", "{range .a}", "{end}", "{.a[}", "{.a[x]}"] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }
}
