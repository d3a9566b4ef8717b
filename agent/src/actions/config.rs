//! `config.switch`: replaces a configuration file or link atomically and saves
//! the previous one.
//!
//! The new file has owner, mode, ACL and the other extended attributes of the
//! previous one; the undo puts the previous file itself back.

use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, satisfied_if,
    with_before_image,
};
use crate::host::files::{self, FileState};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::SwitchConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub struct Switch;

/// The previous state of the path, and the state that this action sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BeforeImage {
    before: FileState,
    after: FileState,
}

/// Where the previous file is saved.
fn previous(path: &Path) -> PathBuf {
    files::aside(path, "previous")
}

/// The state that will be set: a link stays a link, anything else becomes a
/// copy.
fn wanted(before: &FileState, to: &Path) -> Result<FileState, ActionError> {
    Ok(match before {
        FileState::Link { attributes, .. } => FileState::Link {
            target: to.to_owned(),
            attributes: attributes.clone(),
        },
        FileState::File { attributes, .. } => FileState::File {
            digest: files::digest(to)?,
            attributes: attributes.clone(),
        },
        FileState::Absent => FileState::File {
            digest: files::digest(to)?,
            attributes: Some(files::attributes_of(to)?.of_a_new_file()),
        },
    })
}

fn before_image(params: &SwitchConfig) -> Result<BeforeImage, ActionError> {
    let (path, to) = (Path::new(&params.path), Path::new(&params.to));
    if let Err(e) = std::fs::metadata(to) {
        return Err(
            ActionError::new(Code::LS2130, format!("{} is not there", to.display()))
                .state_left("nothing was changed")
                .remedy("put the new configuration in place before the cutover")
                .source(e),
        );
    }
    let before = files::inspect(path)?;
    let after = wanted(&before, to)?;
    Ok(BeforeImage { before, after })
}

/// Whether the switch and its undo will be able to do their work.
fn feasible(params: &SwitchConfig, image: &BeforeImage) -> Result<(), ActionError> {
    let (path, to) = (Path::new(&params.path), Path::new(&params.to));
    match &image.before {
        FileState::Link { .. } => files::may_replace(path, path, 0, &["new"]),
        FileState::Absent => files::may_replace(path, to, size(to), &["new"]),
        FileState::File { .. } => {
            files::may_replace(path, path, size(to), &["new", "previous"])?;
            files::may_rename(&previous(path), &["new"])
        }
    }
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[async_trait]
impl Action for Switch {
    type Params = SwitchConfig;

    fn required_permissions(&self, params: &SwitchConfig) -> Vec<Permission> {
        vec![Permission::Path(PathBuf::from(&params.path))]
    }

    async fn probe(&self, _cx: &Context, params: &SwitchConfig) -> Result<Probe, ActionError> {
        let before_image = before_image(params)?;
        let so = before_image.after.is(&before_image.before);
        if !so {
            feasible(params, &before_image)?;
        }
        with_before_image(satisfied_if(so), &before_image)
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &SwitchConfig,
    ) -> Result<Description, ActionError> {
        let image = before_image(params)?;
        let path = Path::new(&params.path);
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
                    previous(path).display()
                )
            }
            FileState::Absent => format!("copy {} to {}", params.to, params.path),
        };
        let mut description = Description::of([line]);
        if !image.after.is(&image.before) {
            description.obstacle(feasible(params, &image));
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
        let (path, to) = (Path::new(&params.path), Path::new(&params.to));
        let now = files::inspect(path)?;
        let image: Option<BeforeImage> = before_image.map(decode_before_image).transpose()?;
        // An earlier attempt has replaced it: what is saved is the previous file.
        if image.is_some_and(|image| image.after.is(&now) && !image.before.is(&now)) {
            return Ok(Outputs::new());
        }
        match &now {
            FileState::Link { .. } => files::point(path, to)?,
            FileState::File { .. } => {
                files::save(path, &previous(path))?;
                files::replace(path, to)?;
            }
            FileState::Absent => files::replace(path, to)?,
        }
        report(cx, params, "switched", &now)?;
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &SwitchConfig,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before_image: BeforeImage = decode_before_image(before_image)?;
        let path = Path::new(&params.path);
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
        report(cx, params, "restored", &now)?;
        files::discard_unfinished(path)?;
        Ok(Undone::Restored)
    }
}

/// Reports the change of the path, with the digests before and after.
fn report(
    cx: &Context,
    params: &SwitchConfig,
    verb: &str,
    before: &FileState,
) -> Result<(), ActionError> {
    let now = files::inspect(Path::new(&params.path))?;
    cx.effect(format!(
        "{verb} {}: {} before, {} now",
        params.path,
        before.shown(),
        now.shown()
    ));
    Ok(())
}

/// Removes what an agent that was killed in the middle of this action or of its
/// undo left in the directory: the half-written replacement, and the saved copy of
/// the file that is in place again.
fn remove_leftovers(path: &Path, image: &BeforeImage) -> Result<(), ActionError> {
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

fn restore(path: &Path, before: &FileState) -> Result<(), ActionError> {
    let previous = previous(path);
    if let Some(difference) = before.difference(&files::inspect(&previous)?) {
        return Err(ActionError::new(
            Code::LS2131,
            format!(
                "{} is not the saved copy of {}: {difference}",
                previous.display(),
                path.display()
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
    use lockstep_barrier::message::Finding;
    use std::fs;

    struct Site {
        _dir: tempfile::TempDir,
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
        Site {
            _dir: dir,
            path,
            params,
        }
    }

    /// Probe, execute, probe again, undo: the path is as before.
    async fn there_and_back(site: &Site) {
        let (cx, before) = (Context::of_test(""), files::inspect(&site.path).unwrap());
        let probe = Switch.probe(&cx, &site.params).await.unwrap();
        assert_eq!(probe.finding, Finding::Pending);
        let before_image = probe.before_image.unwrap();
        Switch
            .execute(&cx, &site.params, Some(&before_image))
            .await
            .unwrap();
        assert_eq!(fs::read_to_string(&site.path).unwrap(), "postgres");
        assert_eq!(
            Switch.probe(&cx, &site.params).await.unwrap().finding,
            Finding::Satisfied
        );
        let undone = Switch.undo(&cx, &site.params, &before_image).await.unwrap();
        assert_eq!(undone, Undone::Restored);
        assert_eq!(files::inspect(&site.path).unwrap(), before);
        assert_eq!(
            Switch.undo(&cx, &site.params, &before_image).await.unwrap(),
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
        let (site, cx) = (site(), Context::of_test(""));
        fs::write(&site.path, "oracle").unwrap();
        let listing = || -> Vec<_> {
            let entries = fs::read_dir(site.path.parent().unwrap()).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = listing();
        let probe = Switch.probe(&cx, &site.params).await.unwrap();
        let before_image = probe.before_image.unwrap();
        fs::write(files::aside(&site.path, "new"), "half").unwrap();
        fs::write(previous(&site.path), "oracle").unwrap();
        fs::write(files::aside(&previous(&site.path), "new"), "half").unwrap();
        let undone = Switch.undo(&cx, &site.params, &before_image).await.unwrap();
        assert_eq!(undone, Undone::Unchanged);
        assert_eq!(listing(), before);
    }

    #[tokio::test]
    async fn acl_and_labels_go_there_and_back_and_a_change_of_them_is_drift() {
        let (site, cx) = (site(), Context::of_test(""));
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
        let probe = Switch.probe(&cx, &site.params).await.unwrap();
        let image = probe.before_image.unwrap();
        Switch
            .execute(&cx, &site.params, Some(&image))
            .await
            .unwrap();
        assert_eq!(
            files::attributes_of(&site.path).unwrap().extended.len(),
            1,
            "the new file has the attribute"
        );
        set("user.origin", b"by hand").unwrap();
        let undone = Switch.undo(&cx, &site.params, &image).await.unwrap();
        let Undone::Drifted(what) = undone else {
            unreachable!("{undone:?}");
        };
        assert!(what.contains("user.origin"), "{what}");
    }

    /// A retry whose first attempt was killed after the replacement doesn't save the
    /// new file as the previous one.
    #[tokio::test]
    async fn a_repeated_execution_keeps_the_saved_file() {
        let (site, cx) = (site(), Context::of_test(""));
        fs::write(&site.path, "oracle").unwrap();
        let probe = Switch.probe(&cx, &site.params).await.unwrap();
        let image = probe.before_image.unwrap();
        for _ in 0..2 {
            Switch
                .execute(&cx, &site.params, Some(&image))
                .await
                .unwrap();
        }
        let undone = Switch.undo(&cx, &site.params, &image).await.unwrap();
        assert_eq!(undone, Undone::Restored);
        assert_eq!(fs::read_to_string(&site.path).unwrap(), "oracle");
    }

    #[tokio::test]
    async fn what_prevents_the_switch_is_an_obstacle_and_a_vote_against_it() {
        let (site, cx) = (site(), Context::of_test(""));
        fs::write(&site.path, "oracle").unwrap();
        fs::create_dir(previous(&site.path)).unwrap();
        let description = Switch.describe(&cx, &site.params).await.unwrap();
        let error = Switch.probe(&cx, &site.params).await.unwrap_err();
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
        let error = Switch
            .probe(&Context::of_test(""), &site.params)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::LS2120);
    }

    #[tokio::test]
    async fn other_names_of_the_file_are_remarked() {
        let (site, cx) = (site(), Context::of_test(""));
        fs::write(&site.path, "oracle").unwrap();
        fs::hard_link(&site.path, site.path.with_file_name("alias")).unwrap();
        let description = Switch.describe(&cx, &site.params).await.unwrap();
        assert!(description.remarks[0].contains("hard links"));
        there_and_back(&site).await;
    }

    #[tokio::test]
    async fn a_foreign_change_is_left_alone() {
        let (site, cx) = (site(), Context::of_test(""));
        fs::write(&site.path, "oracle").unwrap();
        let before_image = Switch
            .probe(&cx, &site.params)
            .await
            .unwrap()
            .before_image
            .unwrap();
        Switch
            .execute(&cx, &site.params, Some(&before_image))
            .await
            .unwrap();
        fs::write(&site.path, "somebody else's").unwrap();
        let undone = Switch.undo(&cx, &site.params, &before_image).await.unwrap();
        assert!(matches!(undone, Undone::Drifted(_)), "{undone:?}");
        assert_eq!(fs::read_to_string(&site.path).unwrap(), "somebody else's");
    }
}
