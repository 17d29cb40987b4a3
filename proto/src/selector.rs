//! Label and field selectors: their text form, their `LabelSelector` object form, matching.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub type Labels = BTreeMap<String, String>;

/// A parsed label selector: all requirements must hold. Empty matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    pub requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    NotExists(String),
}

/// The object form, as in a Deployment's `spec.selector`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelSelectorRequirement {
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            // A missing key satisfies NotIn and !=, as upstream documents.
            Self::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Self::Exists(key) => labels.contains_key(key),
            Self::NotExists(key) => !labels.contains_key(key),
        }
    }
}

impl Selector {
    /// Exactly these labels.
    pub fn from_labels(labels: &Labels) -> Self {
        let requirements =
            labels.iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect();
        Self { requirements }
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements = split_top(text)
            .into_iter()
            .filter(|part| !part.trim().is_empty())
            .map(|part| parse_requirement(part.trim()))
            .collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }
}

/// Splits at commas that stand outside parentheses.
fn split_top(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Result<Requirement, SelectorError> {
    let syntax = || SelectorError::Syntax(format!("{part:?}"));
    let key = |text: &str| {
        let text = text.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if text.is_empty() || !text.chars().all(plain) {
            Err(syntax())
        } else {
            Ok(text.to_owned())
        }
    };
    let value = |text: &str| {
        let text = text.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if text.chars().all(plain) { Ok(text.to_owned()) } else { Err(syntax()) }
    };
    if let Some(rest) = part.strip_prefix('!') {
        return Ok(Requirement::NotExists(key(rest)?));
    }
    if let Some(inner) = part.strip_suffix(')') {
        let (head, list) = inner.split_once('(').ok_or_else(syntax)?;
        let values = list.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
        let mut words = head.split_whitespace();
        let name = key(words.next().ok_or_else(syntax)?)?;
        return match (words.next(), words.next()) {
            (Some("in"), None) => Ok(Requirement::In(name, values)),
            (Some("notin"), None) => Ok(Requirement::NotIn(name, values)),
            _ => Err(syntax()),
        };
    }
    for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((left, right)) = part.split_once(operator) {
            let (name, wanted) = (key(left)?, vec![value(right)?]);
            return Ok(if negated {
                Requirement::NotIn(name, wanted)
            } else {
                Requirement::In(name, wanted)
            });
        }
    }
    Ok(Requirement::Exists(key(part)?))
}

impl LabelSelector {
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    pub fn compile(&self) -> Result<Selector, SelectorError> {
        let mut selector = Selector::from_labels(&self.match_labels);
        for e in &self.match_expressions {
            selector.requirements.push(match e.operator.as_str() {
                "In" => Requirement::In(e.key.clone(), e.values.clone()),
                "NotIn" => Requirement::NotIn(e.key.clone(), e.values.clone()),
                "Exists" => Requirement::Exists(e.key.clone()),
                "DoesNotExist" => Requirement::NotExists(e.key.clone()),
                other => return Err(SelectorError::Operator(other.to_owned())),
            });
        }
        Ok(selector)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, requirement) in self.requirements.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::In(k, v) if v.len() == 1 => write!(f, "{k}={}", v[0])?,
                Requirement::NotIn(k, v) if v.len() == 1 => write!(f, "{k}!={}", v[0])?,
                Requirement::In(k, v) => write!(f, "{k} in ({})", v.join(","))?,
                Requirement::NotIn(k, v) => write!(f, "{k} notin ({})", v.join(","))?,
                Requirement::Exists(k) => f.write_str(k)?,
                Requirement::NotExists(k) => write!(f, "!{k}")?,
            }
        }
        Ok(())
    }
}

/// A field selector: `metadata.name=web,spec.nodeName!=n1`. Only equality, as upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    pub path: String,
    pub value: String,
    pub negated: bool,
}

impl FieldSelector {
    pub fn equal(path: &str, value: &str) -> Self {
        Self { terms: vec![FieldTerm { path: path.into(), value: value.into(), negated: false }] }
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (path, value, negated) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, true)
            } else if let Some((path, value)) =
                part.split_once("==").or_else(|| part.split_once('='))
            {
                (path, value, false)
            } else {
                return Err(SelectorError::Syntax(format!("invalid field selector {part:?}")));
            };
            terms.push(FieldTerm { path: path.trim().into(), value: value.trim().into(), negated });
        }
        Ok(Self { terms })
    }

    /// `field` gives the value at a path; what is not there is the empty text.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|t| (field(&t.path).unwrap_or("") == t.value) != t.negated)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, t) in self.terms.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            let operator = if t.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}{}", t.path, t.value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn matches_as_upstream_documents() {
        let web = labels(&[("app", "web"), ("tier", "front")]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("missing!=x", true),
            ("app in (web, db)", true),
            ("app notin (web)", false),
            ("missing notin (x)", true),
            ("tier", true),
            ("!tier", false),
            ("!missing", true),
        ] {
            let selector = Selector::parse(text).expect(text);
            assert_eq!(selector.matches(&web), expected, "{text}");
        }
    }

    #[test]
    fn refuses_broken_text() {
        for text in ["a in web", "a b", "a in (b", "=x", "a=b c"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn field_terms() {
        let selector = FieldSelector::parse("metadata.name=web,spec.nodeName!=n1").expect("parses");
        let field = |path: &str| (path == "metadata.name").then_some("web");
        assert!(selector.matches(field));
        assert!(FieldSelector::parse("metadata.name").is_err());
    }
}
