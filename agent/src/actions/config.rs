//! `config.switch`: replaces a configuration file or link atomically and saves
//! the previous one.
//!
//! The new file has owner, mode, ACL and the other extended attributes of the
//! previous one, or stricter ones where not everybody may read the file that is copied;
//! the undo puts the previous file itself back.

use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, satisfied_if,
    with_before_image,
};
use crate::host::files::{self, FileState, Place};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::SwitchConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

pub struct Switch;

/// The previous state of the path, and the state that this action sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BeforeImage {
    before: FileState,
    after: FileState,
}

/// Where the previous file is saved.
fn previous(path: &Place) -> Place {
    path.aside("previous")
}

/// The two places of a switch, which the policy allows.
struct Places {
    path: Place,
    to: Place,
}

fn places(cx: &Context, params: &SwitchConfig) -> Result<Places, ActionError> {
    let [path, to] = needs(params);
    Ok(Places {
        path: cx.host.policy.place(&path)?,
        to: cx.host.policy.place(&to)?,
    })
}

fn needs(params: &SwitchConfig) -> [Permission; 2] {
    [
        Permission::Replace(PathBuf::from(&params.path)),
        Permission::Read(PathBuf::from(&params.to)),
    ]
}

impl Places {
    /// The state that will be set: a link stays a link, anything else becomes a
    /// copy.
    fn wanted(&self, before: &FileState) -> Result<FileState, ActionError> {
        match before {
            FileState::Link { attributes, .. } => Ok(FileState::Link {
                target: self.to.path().to_owned(),
                attributes: attributes.clone(),
            }),
            FileState::File { .. } | FileState::Absent => files::replaced(&self.path, &self.to),
        }
    }

    fn before_image(&self) -> Result<BeforeImage, ActionError> {
        if files::is_free(&self.to)? {
            let what = format!("{} is not there", self.to.path().display());
            return Err(ActionError::new(Code::LS2130, what)
                .state_left("nothing was changed")
                .remedy("put the new configuration in place before the cutover"));
        }
        let before = files::inspect(&self.path)?;
        let after = self.wanted(&before)?;
        Ok(BeforeImage { before, after })
    }

    /// Whether the switch and its undo will be able to do their work.
    fn feasible(&self, image: &BeforeImage) -> Result<(), ActionError> {
        let (path, to) = (&self.path, &self.to);
        match &image.before {
            FileState::Link { .. } => files::may_replace(path, None, &["new"]),
            FileState::Absent => files::may_replace(path, Some(to), &["new"]),
            FileState::File { .. } => {
                files::may_replace(path, Some(to), &["new", "previous"])?;
                files::may_rename(&previous(path), &["new"])
            }
        }
    }
}

#[async_trait]
impl Action for Switch {
    type Params = SwitchConfig;

    fn required_permissions(&self, params: &SwitchConfig) -> Vec<Permission> {
        needs(params).into()
    }

    async fn probe(&self, cx: &Context, params: &SwitchConfig) -> Result<Probe, ActionError> {
        let places = places(cx, params)?;
        let before_image = places.before_image()?;
        let so = before_image.after.is(&before_image.before);
        if !so {
            places.feasible(&before_image)?;
        }
        with_before_image(satisfied_if(so), &before_image)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &SwitchConfig,
    ) -> Result<Description, ActionError> {
        let places = places(cx, params)?;
        let image = places.before_image()?;
        let path = &places.path;
        let line = match &image.before {
            FileState::Link { target, .. } => {
                format!(
                    "point {} at {} (now {})",
                    params.path,
                    params.to,
                    target.display()
                )
            }
            FileState::File { .. } => {
                format!(
                    "replace {} by {}, keep it as {}",
                    params.path,
                    params.to,
                    previous(path).path().display()
                )
            }
            FileState::Absent => format!("copy {} to {}", params.to, params.path),
        };
        let mut description = Description::of([line]);
        if !image.after.is(&image.before) {
            description.obstacle(places.feasible(&image));
        }
        if let FileState::File { .. } = &image.before {
            let remark = files::restriction(path, &places.to)?;
            description.remarks.extend(remark);
        }
        let names = files::names(path);
        if let (FileState::File { .. }, 2..) = (&image.before, names) {
            description.remarks.push(format!(
                "{} has {} other names (hard links); what reads the file by another name still \
                 reads the previous content after the switch",
                params.path,
                names - 1
            ));
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &SwitchConfig,
        before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let Places { path, to } = &places(cx, params)?;
        let now = files::inspect(path)?;
        let image: Option<BeforeImage> = before_image.map(decode_before_image).transpose()?;
        // An earlier attempt has replaced it: what is saved is the previous file.
        if image.is_some_and(|image| image.after.is(&now) && !image.before.is(&now)) {
            return Ok(Outputs::new());
        }
        match &now {
            FileState::Link { .. } => files::point(path, to.path())?,
            FileState::File { .. } => {
                files::save(path, &previous(path))?;
                files::replace(path, to)?;
            }
            FileState::Absent => files::replace(path, to)?,
        }
        report(cx, path, "switched", &now)?;
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &SwitchConfig,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before_image: BeforeImage = decode_before_image(before_image)?;
        let [need, _] = needs(params);
        let path = &cx.host.policy.place(&need)?;
        let now = files::inspect(path)?;
        if before_image.before.is(&now) {
            remove_leftovers(path, &before_image)?;
            return Ok(Undone::Unchanged);
        }
        if let Some(difference) = before_image.after.difference(&now) {
            return Ok(Undone::Drifted(format!(
                "{} was changed by somebody else after the switch: {difference}",
                params.path
            )));
        }
        match &before_image.before {
            FileState::Link { target, .. } => files::point(path, target)?,
            FileState::Absent => files::remove(path)?,
            FileState::File { .. } => restore(path, &before_image.before)?,
        }
        report(cx, path, "restored", &now)?;
        files::discard_unfinished(path)?;
        Ok(Undone::Restored)
    }
}

/// Reports the change of the path, with the digests before and after.
fn report(cx: &Context, path: &Place, verb: &str, before: &FileState) -> Result<(), ActionError> {
    let now = files::inspect(path)?;
    cx.effect(format!(
        "{verb} {}: {} before, {} now",
        path.path().display(),
        before.shown(),
        now.shown()
    ));
    Ok(())
}

/// Removes what an agent that was killed in the middle of this action or of its
/// undo left in the directory: the half-written replacement, and the saved copy of
/// the file that is in place again.
fn remove_leftovers(path: &Place, image: &BeforeImage) -> Result<(), ActionError> {
    files::discard_unfinished(path)?;
    let FileState::File { .. } = image.before else {
        return Ok(());
    };
    let previous = previous(path);
    files::discard_unfinished(&previous)?;
    if !image.after.is(&image.before) && image.before.is(&files::inspect(&previous)?) {
        files::remove(&previous)?;
    }
    Ok(())
}

fn restore(path: &Place, before: &FileState) -> Result<(), ActionError> {
    let previous = previous(path);
    if let Some(difference) = before.difference(&files::inspect(&previous)?) {
        return Err(ActionError::new(
            Code::LS2131,
            format!(
                "{} is not the saved copy of {}: {difference}",
                previous.path().display(),
                path.path().display()
            ),
        )
        .state_left("the new configuration is in effect")
        .remedy("restore the old one by hand from a backup, then skip this task"));
    }
    files::put_back(&previous, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Progress;
    use lockstep_barrier::message::Finding;
    use sha2::{Digest, Sha256};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::{Arc, Mutex};

    struct Site {
        _dir: tempfile::TempDir,
        cx: Context,
        path: PathBuf,
        params: SwitchConfig,
    }

    fn site() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("database.toml");
        fs::write(dir.path().join("oracle.toml"), "oracle").unwrap();
        fs::write(dir.path().join("postgres.toml"), "postgres").unwrap();
        let params = SwitchConfig {
            path: path.display().to_string(),
            to: dir.path().join("postgres.toml").display().to_string(),
        };
        let policy = format!("[policy]\npaths=['{}']\n", dir.path().display());
        Site {
            _dir: dir,
            cx: Context::of_test(&policy),
            path,
            params,
        }
    }

    /// Probe, execute, probe again, undo: the path is as before.
    async fn there_and_back(site: &Site) {
        let cx = &site.cx;
        let before = files::inspect(&Place::of_test(&site.path)).unwrap();
        let probe = Switch.probe(cx, &site.params).await.unwrap();
        assert_eq!(probe.finding, Finding::Pending);
        let before_image = probe.before_image.unwrap();
        Switch
            .execute(cx, &site.params, Some(&before_image))
            .await
            .unwrap();
        assert_eq!(fs::read_to_string(&site.path).unwrap(), "postgres");
        assert_eq!(
            Switch.probe(cx, &site.params).await.unwrap().finding,
            Finding::Satisfied
        );
        let undone = Switch.undo(cx, &site.params, &before_image).await.unwrap();
        assert_eq!(undone, Undone::Restored);
        assert_eq!(files::inspect(&Place::of_test(&site.path)).unwrap(), before);
        assert_eq!(
            Switch.undo(cx, &site.params, &before_image).await.unwrap(),
            Undone::Unchanged
        );
    }

    #[tokio::test]
    async fn a_file_goes_there_and_back() {
        let site = site();
        fs::write(&site.path, "oracle").unwrap();
        there_and_back(&site).await;
    }

    #[tokio::test]
    async fn a_link_goes_there_and_back() {
        let site = site();
        std::os::unix::fs::symlink("oracle.toml", &site.path).unwrap();
        there_and_back(&site).await;
    }

    #[tokio::test]
    async fn what_was_absent_is_absent_again() {
        there_and_back(&site()).await;
    }

    /// Killed before anything was replaced, and killed when only the removal of the
    /// saved copy was left: the undo leaves the directory as it was.
    #[tokio::test]
    async fn an_undo_removes_what_a_killed_agent_left() {
        let site = site();
        let cx = &site.cx;
        fs::write(&site.path, "oracle").unwrap();
        let listing = || -> Vec<_> {
            let entries = fs::read_dir(site.path.parent().unwrap()).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = listing();
        let probe = Switch.probe(cx, &site.params).await.unwrap();
        let before_image = probe.before_image.unwrap();
        let place = Place::of_test(&site.path);
        fs::write(place.aside("new").path(), "half").unwrap();
        fs::write(previous(&place).path(), "oracle").unwrap();
        fs::write(previous(&place).aside("new").path(), "half").unwrap();
        let undone = Switch.undo(cx, &site.params, &before_image).await.unwrap();
        assert_eq!(undone, Undone::Unchanged);
        assert_eq!(listing(), before);
    }

    #[tokio::test]
    async fn acl_and_labels_go_there_and_back_and_a_change_of_them_is_drift() {
        let site = site();
        let cx = &site.cx;
        fs::write(&site.path, "oracle").unwrap();
        let set = |name: &str, value: &[u8]| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(&site.path, name, value, flags)
        };
        if let Err(e) = set("user.origin", b"ansible") {
            eprintln!("SKIPPED: this filesystem has no extended attributes: {e}");
            return;
        }
        there_and_back(&site).await;
        let probe = Switch.probe(cx, &site.params).await.unwrap();
        let image = probe.before_image.unwrap();
        Switch
            .execute(cx, &site.params, Some(&image))
            .await
            .unwrap();
        let now = files::inspect(&Place::of_test(&site.path)).unwrap();
        let now = serde_json::to_value(&now).unwrap();
        let extended = now["attributes"]["extended"].as_object().unwrap();
        assert_eq!(extended.len(), 1, "the new file has the attribute");
        set("user.origin", b"by hand").unwrap();
        let undone = Switch.undo(cx, &site.params, &image).await.unwrap();
        let Undone::Drifted(what) = undone else {
            unreachable!("{undone:?}");
        };
        assert!(what.contains("user.origin"), "{what}");
    }

    /// A retry whose first attempt was killed after the replacement doesn't save the
    /// new file as the previous one.
    #[tokio::test]
    async fn a_repeated_execution_keeps_the_saved_file() {
        let site = site();
        let cx = &site.cx;
        fs::write(&site.path, "oracle").unwrap();
        let probe = Switch.probe(cx, &site.params).await.unwrap();
        let image = probe.before_image.unwrap();
        for _ in 0..2 {
            Switch
                .execute(cx, &site.params, Some(&image))
                .await
                .unwrap();
        }
        let undone = Switch.undo(cx, &site.params, &image).await.unwrap();
        assert_eq!(undone, Undone::Restored);
        assert_eq!(fs::read_to_string(&site.path).unwrap(), "oracle");
    }

    #[tokio::test]
    async fn what_prevents_the_switch_is_an_obstacle_and_a_vote_against_it() {
        let site = site();
        let cx = &site.cx;
        fs::write(&site.path, "oracle").unwrap();
        fs::create_dir(previous(&Place::of_test(&site.path)).path()).unwrap();
        let description = Switch.describe(cx, &site.params).await.unwrap();
        let error = Switch.probe(cx, &site.params).await.unwrap_err();
        assert_eq!(description.obstacles, [error.report()]);
        assert_eq!(error.code(), Code::LS2120);
    }

    #[tokio::test]
    async fn a_replacement_that_is_no_file_is_refused_unread() {
        let mut site = site();
        fs::write(&site.path, "oracle").unwrap();
        let pipe = site.path.with_file_name("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        site.params.to = pipe.display().to_string();
        let error = Switch.probe(&site.cx, &site.params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2120);
    }

    #[tokio::test]
    async fn other_names_of_the_file_are_remarked() {
        let site = site();
        let cx = &site.cx;
        fs::write(&site.path, "oracle").unwrap();
        fs::hard_link(&site.path, site.path.with_file_name("alias")).unwrap();
        let description = Switch.describe(cx, &site.params).await.unwrap();
        assert!(description.remarks[0].contains("hard links"));
        there_and_back(&site).await;
    }

    #[tokio::test]
    async fn a_foreign_change_is_left_alone() {
        let site = site();
        let cx = &site.cx;
        fs::write(&site.path, "oracle").unwrap();
        let before_image = Switch
            .probe(cx, &site.params)
            .await
            .unwrap()
            .before_image
            .unwrap();
        Switch
            .execute(cx, &site.params, Some(&before_image))
            .await
            .unwrap();
        fs::write(&site.path, "somebody else's").unwrap();
        let undone = Switch.undo(cx, &site.params, &before_image).await.unwrap();
        assert!(matches!(undone, Undone::Drifted(_)), "{undone:?}");
        assert_eq!(fs::read_to_string(&site.path).unwrap(), "somebody else's");
    }

    /// Another party may neither learn what only root may read, nor its digest.
    #[tokio::test]
    async fn neither_a_secret_nor_its_digest_becomes_public() {
        let mut site = site();
        let at = |name: &str| site.path.with_file_name(name);
        let secret = at("password");
        fs::write(&secret, "canary").unwrap();
        fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(&site.path, "oracle").unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("shadow"), "root").unwrap();
        for source in [outside.path().join("shadow"), at("../shadow")] {
            site.params.to = source.display().to_string();
            let error = Switch.probe(&site.cx, &site.params).await.unwrap_err();
            assert_eq!(error.code(), Code::LS2001);
            let error = Switch.execute(&site.cx, &site.params, None).await;
            assert_eq!(error.unwrap_err().code(), Code::LS2001);
        }
        site.params.to = secret.display().to_string();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = lines.clone();
        let cx = Context {
            progress: Progress::to(move |line| seen.lock().unwrap().push(line)),
            ..site.cx.clone()
        };
        let image = Switch.probe(&cx, &site.params).await.unwrap().before_image;
        Switch
            .execute(&cx, &site.params, image.as_ref())
            .await
            .unwrap();
        let mode = fs::metadata(&site.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        let digest = hex::encode(Sha256::digest("canary"));
        let said = format!("{image:?} {:?}", lines.lock().unwrap());
        assert!(said.contains("switched"), "{said}");
        assert!(!said.contains(&digest), "{said}");
        let undone = Switch
            .undo(&cx, &site.params, &image.unwrap())
            .await
            .unwrap();
        assert_eq!(undone, Undone::Restored);
        assert_eq!(fs::read_to_string(&site.path).unwrap(), "oracle");
    }
}
