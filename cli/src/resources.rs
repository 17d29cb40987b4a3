//! From what a user types (`po`, `deploy/web`, `pods,svc`, `deployments.apps`) to resources.

use skiff_client::ResourceInfo;

/// The kinds that the server serves, for looking up what the user means.
pub struct Catalog {
    infos: Vec<ResourceInfo>,
}

/// One resource, and the names asked for; none means all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub info: ResourceInfo,
    pub names: Vec<String>,
}

impl Catalog {
    pub fn new(infos: Vec<ResourceInfo>) -> Self {
        Self { infos }
    }

    pub fn infos(&self) -> &[ResourceInfo] {
        &self.infos
    }

    /// By plural, singular, short name or kind, with or without a group: `deployments.apps`.
    pub fn find(&self, word: &str) -> anyhow::Result<&ResourceInfo> {
        let lower = word.to_ascii_lowercase();
        let named = |info: &&ResourceInfo, name: &str| {
            info.resource.plural == name
                || info.singular == name
                || info.kind.to_ascii_lowercase() == name
                || info.short_names.iter().any(|s| s == name)
        };
        let plain = self.infos.iter().find(|info| named(info, &lower));
        let qualified = || {
            let (name, group) = lower.split_once('.')?;
            let in_group = |info: &&ResourceInfo| {
                let full = format!("{}.{}", info.resource.version, info.resource.group);
                info.resource.group == group || full == group
            };
            self.infos.iter().find(|info| named(info, name) && in_group(info))
        };
        plain
            .or_else(qualified)
            .ok_or_else(|| anyhow::anyhow!("the server doesn't have a resource type {word:?}"))
    }

    /// The resource of a manifest's `apiVersion` and `kind`.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> anyhow::Result<&ResourceInfo> {
        let found =
            self.infos.iter().find(|i| i.kind == kind && i.resource.api_version() == api_version);
        found.ok_or_else(|| {
            anyhow::anyhow!("no matches for kind {kind:?} in version {api_version:?}")
        })
    }

    /// Reads kubectl's forms: `TYPE[,TYPE] [NAME...]` and `TYPE/NAME [TYPE/NAME...]`.
    pub fn asked(&self, words: &[String]) -> anyhow::Result<Vec<Asked>> {
        let Some(first) = words.first() else {
            anyhow::bail!("You must specify the type of resource, e.g. pods or deployment/web");
        };
        if !first.contains('/') {
            let names = &words[1..];
            if let Some(pair) = names.iter().find(|n| n.contains('/')) {
                anyhow::bail!(
                    "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'get resource/<resource_name>' instead of 'get resource resource/<resource_name>': {pair}"
                );
            }
            return self
                .types(first)?
                .into_iter()
                .map(|info| Ok(Asked { info, names: names.to_vec() }))
                .collect();
        }
        words.iter().map(|word| self.pair(word)).collect()
    }

    fn types(&self, list: &str) -> anyhow::Result<Vec<ResourceInfo>> {
        let mut found = Vec::new();
        for word in list.split(',').filter(|w| !w.is_empty()) {
            let category: Vec<_> = self
                .infos
                .iter()
                .filter(|i| i.categories.iter().any(|c| c == word))
                .cloned()
                .collect();
            if category.is_empty() {
                found.push(self.find(word)?.clone());
            } else {
                found.extend(category);
            }
        }
        Ok(found)
    }

    fn pair(&self, word: &str) -> anyhow::Result<Asked> {
        match word.split_once('/') {
            Some((kind, name)) if !name.is_empty() && !name.contains('/') => {
                Ok(Asked { info: self.find(kind)?.clone(), names: vec![name.to_owned()] })
            }
            _ => anyhow::bail!(
                "arguments in resource/name form must have a single resource and name: {word:?}"
            ),
        }
    }
}

/// `pod/web`, `deployment.apps/web`: how kubectl names one object in its answers.
pub fn singular_name(info: &ResourceInfo, name: &str) -> String {
    if info.resource.group.is_empty() {
        format!("{}/{name}", info.singular)
    } else {
        format!("{}.{}/{name}", info.singular, info.resource.group)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use skiff_proto::resource;

    pub(crate) fn catalog() -> Catalog {
        let info = |resource: &skiff_proto::Resource, kind: &str, singular: &str, short: &str| {
            ResourceInfo {
                resource: resource.clone(),
                kind: kind.into(),
                singular: singular.into(),
                short_names: vec![short.into()],
                categories: vec!["all".into()],
                namespaced: true,
                verbs: vec![],
                subresources: vec![],
            }
        };
        Catalog::new(vec![
            info(&resource::PODS, "Pod", "pod", "po"),
            info(&resource::DEPLOYMENTS, "Deployment", "deployment", "deploy"),
        ])
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn understands_what_kubectl_users_type() {
        let catalog = catalog();
        for word in ["po", "pod", "pods", "Pod"] {
            assert_eq!(catalog.find(word).expect(word).kind, "Pod");
        }
        for word in ["deploy", "deployments.apps", "deployment.v1.apps"] {
            assert_eq!(catalog.find(word).expect(word).kind, "Deployment");
        }
        let asked = catalog.asked(&words("deploy/web po/a")).expect("pairs");
        assert_eq!(asked[1].names, ["a"]);
        assert_eq!(catalog.asked(&words("po,deploy")).expect("types").len(), 2);
        assert_eq!(catalog.asked(&words("all")).expect("category").len(), 2);
        assert_eq!(singular_name(&asked[0].info, "web"), "deployment.apps/web");
    }

    #[test]
    fn says_what_is_wrong() {
        let catalog = catalog();
        let text = |words_: &str| catalog.asked(&words(words_)).expect_err(words_).to_string();
        assert_eq!(text("widgets"), "the server doesn't have a resource type \"widgets\"");
        assert!(text("pod/").contains("single resource and name"));
        assert!(text("pods pod/a").contains("no need to specify a resource type"));
    }
}
