//! Who a container runs as: the manifest's ids, or the image's user found in the image's own
//! `/etc/passwd` and `/etc/group`, with the rules of the CRI.

use crate::ports::Security;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional: Vec<u32>,
}

/// The image's two files; empty when it has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Accounts {
    pub passwd: String,
    pub group: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

pub(super) fn resolve(
    security: &Security,
    image_user: &str,
    accounts: &Accounts,
) -> Result<User, String> {
    let mut user = match security.run_as_user {
        Some(uid) => numeric(id(uid, "runAsUser")?, accounts),
        None => named(image_user, accounts)?,
    };
    if let Some(gid) = security.run_as_group {
        user.gid = id(gid, "runAsGroup")?;
    }
    if security.run_as_non_root && user.uid == 0 {
        return Err("container has runAsNonRoot and image will run as root".to_owned());
    }
    for gid in &security.supplemental_groups {
        let gid = id(*gid, "supplementalGroups")?;
        if !user.additional.contains(&gid) {
            user.additional.push(gid);
        }
    }
    // Without it, a file's rights for the group would not count where the group is denied (CVE-2023-25173).
    if !user.additional.contains(&user.gid) {
        user.additional.insert(0, user.gid);
    }
    Ok(user)
}

fn id(value: i64, field: &str) -> Result<u32, String> {
    u32::try_from(value).map_err(|_| format!("{field} {value} is no id"))
}

/// `user`, `uid`, `user:group`, any mixture of names and numbers, or nothing for root.
fn named(text: &str, accounts: &Accounts) -> Result<User, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    // A name goes before a number: a user may be called `1000`.
    let mut found = match passwd(accounts).find(|account| account.name == user) {
        Some(account) => member_of(&account, accounts),
        None => match user.parse() {
            Ok(uid) => numeric(uid, accounts),
            Err(_) => {
                return Err(format!(
                    "no users found: the image has no user {user:?} in its /etc/passwd"
                ));
            }
        },
    };
    if let Some(group) = group {
        let by_name = groups(accounts).find(|(name, ..)| *name == group).map(|(_, gid, _)| gid);
        found.gid = match by_name.or_else(|| group.parse().ok()) {
            Some(gid) => gid,
            None => {
                return Err(format!(
                    "no groups found: the image has no group {group:?} in its /etc/group"
                ));
            }
        };
        // As in docker: with an explicit group, the user's other groups do not count.
        found.additional.clear();
    }
    Ok(found)
}

fn numeric(uid: u32, accounts: &Accounts) -> User {
    match passwd(accounts).find(|account| account.uid == uid) {
        Some(account) => member_of(&account, accounts),
        None => User { uid, gid: 0, additional: Vec::new() },
    }
}

fn member_of(account: &Account<'_>, accounts: &Accounts) -> User {
    let additional = groups(accounts)
        .filter(|(_, gid, members)| {
            *gid != account.gid && members.split(',').any(|member| member == account.name)
        })
        .map(|(_, gid, _)| gid)
        .collect();
    User { uid: account.uid, gid: account.gid, additional }
}

fn passwd(accounts: &Accounts) -> impl Iterator<Item = Account<'_>> {
    accounts.passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name, uid, gid })
    })
}

fn groups(accounts: &Accounts) -> impl Iterator<Item = (&str, u32, &str)> {
    accounts.group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/:/bin/false\n# x\nbroken\n"
                .into(),
            group: "root:x:0:root\nadm:x:4:root,web\nweb:x:34:\nssl:x:101:web\n".into(),
        }
    }

    #[track_caller]
    fn check(image_user: &str, change: impl FnOnce(&mut Security), expect: &str) {
        let mut security = Security::default();
        change(&mut security);
        let got = match resolve(&security, image_user, &accounts()) {
            Ok(user) => format!("{}:{} {:?}", user.uid, user.gid, user.additional),
            Err(why) => why,
        };
        assert_eq!(got, expect, "of {image_user:?}");
    }

    #[test]
    fn the_images_user() {
        let same = |_: &mut Security| {};
        check("", same, "0:0 [0, 4]");
        check("web", same, "33:34 [34, 4, 101]");
        check("33", same, "33:34 [34, 4, 101]");
        check("1000", same, "1000:0 [0]");
        check("web:ssl", same, "33:101 [101]");
        check("1000:2000", same, "1000:2000 [2000]");
        check(":ssl", same, "0:101 [101]");
        check(
            "nobody",
            same,
            "no users found: the image has no user \"nobody\" in its /etc/passwd",
        );
        check(
            "web:none",
            same,
            "no groups found: the image has no group \"none\" in its /etc/group",
        );
    }

    #[test]
    fn the_manifests_ids_go_first() {
        check("web", |s| s.run_as_user = Some(5), "5:0 [0]");
        check("web", |s| s.run_as_group = Some(7), "33:7 [7, 4, 101]");
        check("", |s| s.supplemental_groups = vec![4, 9], "0:0 [0, 4, 9]");
        check("", |s| s.run_as_user = Some(-1), "runAsUser -1 is no id");
    }

    #[test]
    fn root_is_refused_when_the_manifest_says_so() {
        let root = "container has runAsNonRoot and image will run as root";
        check("", |s| s.run_as_non_root = true, root);
        check("web", |s| (s.run_as_non_root, s.run_as_user) = (true, Some(0)), root);
        check("web", |s| s.run_as_non_root = true, "33:34 [34, 4, 101]");
    }
}
