//! Files and links, their attributes, and what others may do meanwhile.

use super::*;
use sha2::{Digest, Sha256};
use std::os::unix::fs::PermissionsExt;

fn attributes_of(place: &Place) -> Attributes {
    Attributes::of(&place.existing().unwrap()).unwrap()
}

#[test]
fn a_file_is_replaced_with_its_mode_kept() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| Place::of_test(&dir.path().join(name));
    let (path, with) = (at("db.toml"), at("postgres.toml"));
    fs::write(path.path(), "oracle").unwrap();
    fs::set_permissions(path.path(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(with.path(), "postgres").unwrap();
    replace(&path, &with).unwrap();
    assert_eq!(fs::read_to_string(path.path()).unwrap(), "postgres");
    assert_eq!(fs::metadata(path.path()).unwrap().mode() & 0o777, 0o600);
}

/// Sets an extended attribute; `false`, and says so, where the filesystem of the
/// test has none.
fn set(place: &Place, name: &str, value: &[u8]) -> bool {
    let path = place.path();
    match rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()) {
        Ok(()) => true,
        Err(e) => {
            eprintln!("SKIPPED: {name} can't be set on {}: {e}", path.display());
            false
        }
    }
}

fn get(place: &Place, name: &str) -> Option<Vec<u8>> {
    let path = place.path();
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

/// An ACL in the kernel's format (`linux/posix_acl_xattr.h`): version 2, then tag,
/// permissions and id of each entry. User 12345 may read.
fn acl() -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 6, NOBODY),
        (0x02, 4, 12345),
        (0x04, 0, NOBODY),
        (0x10, 4, NOBODY),
        (0x20, 0, NOBODY),
    ];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

const ACL: &str = "system.posix_acl_access";

#[test]
fn a_replaced_file_retains_acl_and_attributes_and_gets_none_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| Place::of_test(&dir.path().join(name));
    let (path, with) = (at("db.toml"), at("postgres.toml"));
    let plain = at("plain.toml");
    for file in [&path, &with, &plain] {
        fs::write(file.path(), "oracle").unwrap();
    }
    fs::set_permissions(plain.path(), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(with.path(), "postgres").unwrap();
    if !set(&path, "user.origin", b"ansible") || !set(&path, ACL, &acl()) {
        return;
    }
    assert!(set(&with, "user.other", b"x"));
    assert!(set(
        &Place::of_test(dir.path()),
        "system.posix_acl_default",
        &acl()
    ));
    let before = attributes_of(&path);
    replace(&path, &with).unwrap();
    assert_eq!(fs::read_to_string(path.path()).unwrap(), "postgres");
    assert_eq!(get(&path, ACL), Some(acl()));
    assert_eq!(get(&path, "user.origin").as_deref(), Some(&b"ansible"[..]));
    assert_eq!(attributes_of(&path), before);

    let before = attributes_of(&plain);
    replace(&plain, &with).unwrap();
    assert_eq!(get(&plain, ACL), None, "inherited from the directory");
    assert_eq!(attributes_of(&plain), before);
}

#[test]
fn a_lost_or_changed_attribute_is_a_difference() {
    let dir = tempfile::tempdir().unwrap();
    let path = Place::of_test(&dir.path().join("db.toml"));
    fs::write(path.path(), "oracle").unwrap();
    if !set(&path, "user.origin", b"ansible") || !set(&path, ACL, &acl()) {
        return;
    }
    let before = inspect(&path).unwrap();
    assert_eq!(before.difference(&inspect(&path).unwrap()), None);
    assert!(set(&path, "user.origin", b"by hand"));
    let difference = before.difference(&inspect(&path).unwrap()).unwrap();
    assert!(difference.contains("user.origin"), "{difference}");
    assert!(set(&path, "user.origin", b"ansible"));
    rustix::fs::lremovexattr(path.path(), ACL).unwrap();
    let difference = before.difference(&inspect(&path).unwrap()).unwrap();
    assert!(difference.contains("lost"), "{difference}");
    fs::set_permissions(path.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let old: FileState = serde_json::from_str(&format!(
        r#"{{"is":"file","digest":"{}"}}"#,
        hex::encode(Sha256::digest("oracle"))
    ))
    .unwrap();
    assert_eq!(
        old.difference(&inspect(&path).unwrap()),
        None,
        "a record without attributes compares contents"
    );
}

/// Also where an earlier attempt ended between the two steps.
#[test]
fn a_saved_file_comes_back_as_the_file_that_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| Place::of_test(&dir.path().join(name));
    let (path, with) = (at("db.toml"), at("postgres.toml"));
    let (saved, other) = (at("saved"), at("other-name"));
    fs::write(path.path(), "oracle").unwrap();
    fs::hard_link(path.path(), other.path()).unwrap();
    fs::write(with.path(), "postgres").unwrap();
    let before = fs::metadata(path.path()).unwrap();
    save(&path, &saved).unwrap();
    save(&path, &saved).unwrap();
    replace(&path, &with).unwrap();
    assert_eq!(fs::read_to_string(other.path()).unwrap(), "oracle");
    put_back(&saved, &path).unwrap();
    let after = fs::metadata(path.path()).unwrap();
    assert_eq!(after.ino(), before.ino());
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    assert_eq!(after.nlink(), 2);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_link_is_pointed_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = Place::of_test(&dir.path().join("db.toml"));
    std::os::unix::fs::symlink("oracle.toml", path.path()).unwrap();
    point(&path, Path::new("postgres.toml")).unwrap();
    let now = inspect(&path).unwrap();
    assert_eq!(now.shown(), "a link to postgres.toml");
}

#[test]
fn a_rename_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| Place::of_test(&dir.path().join(name));
    let (from, to) = (at("a"), at("b"));
    fs::write(from.path(), "1").unwrap();
    fs::write(to.path(), "2").unwrap();
    assert_eq!(rename(&from, &to).unwrap_err().code(), Code::LS2121);
    assert_eq!(fs::read_to_string(to.path()).unwrap(), "2");
}

fn mode(place: &Place, mode: u32) {
    fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_copy_of_a_secret_file_is_as_secret_as_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| Place::of_test(&dir.path().join(name));
    let (path, with) = (at("db.toml"), at("postgres.toml"));
    for (source, replaced, copy) in [
        (0o600, 0o644, 0o600),
        (0o640, 0o664, 0o640),
        (0o660, 0o604, 0o600),
        (0o644, 0o640, 0o640),
    ] {
        fs::write(path.path(), "oracle").unwrap();
        fs::write(with.path(), "postgres").unwrap();
        mode(&path, replaced);
        mode(&with, source);
        let foreseen = super::replaced(&path, &with).unwrap();
        let remark = restriction(&path, &with).unwrap();
        assert_eq!(remark.is_some(), copy != replaced, "{remark:?}");
        replace(&path, &with).unwrap();
        let now = fs::metadata(path.path()).unwrap().mode() & 0o777;
        assert_eq!(now, copy, "{source:o} on {replaced:o}: {now:o}");
        assert_eq!(foreseen.difference(&inspect(&path).unwrap()), None);
    }
}

#[test]
fn an_access_list_of_the_replaced_file_opens_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| Place::of_test(&dir.path().join(name));
    let (path, with) = (at("db.toml"), at("postgres.toml"));
    fs::write(path.path(), "oracle").unwrap();
    fs::write(with.path(), "postgres").unwrap();
    mode(&with, 0o640);
    if !set(&path, ACL, &acl()) {
        return;
    }
    replace(&path, &with).unwrap();
    assert_eq!(get(&path, ACL), None);
    assert_eq!(attributes_of(&path).mode, 0o600);
}

/// The record travels to the coordinator and is shown there.
#[test]
fn the_digest_of_a_secret_file_is_recorded_salted() {
    let dir = tempfile::tempdir().unwrap();
    let path = Place::of_test(&dir.path().join("db.toml"));
    fs::write(path.path(), "password").unwrap();
    let plain = hex::encode(Sha256::digest("password"));
    mode(&path, 0o644);
    let public = inspect(&path).unwrap();
    assert!(public.shown().contains(&plain));
    mode(&path, 0o640);
    let secret = inspect(&path).unwrap();
    let record = serde_json::to_string(&secret).unwrap();
    assert!(!record.contains(&plain), "{record}");
    assert!(!secret.shown().contains(&plain), "{}", secret.shown());
    let read: FileState = serde_json::from_str(&record).unwrap();
    assert!(read.is(&inspect(&path).unwrap()));
    fs::write(path.path(), "another").unwrap();
    assert!(!read.is(&inspect(&path).unwrap()));
    // A record of a version that salted none.
    let old = format!(r#"{{"is":"file","digest":"{plain}"}}"#);
    let old: FileState = serde_json::from_str(&old).unwrap();
    assert!(!old.is(&inspect(&path).unwrap()));
    fs::write(path.path(), "password").unwrap();
    assert!(old.is(&inspect(&path).unwrap()));
}

/// What was resolved stays what is meant.
#[test]
fn a_directory_that_is_swapped_for_a_link_leads_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for made in ["shop", "victim"] {
        fs::create_dir(at(made)).unwrap();
        fs::write(at(made).join("db.toml"), "oracle").unwrap();
    }
    fs::write(at("postgres.toml"), "postgres").unwrap();
    let path = Place::of_test(&at("shop/db.toml"));
    let with = Place::of_test(&at("postgres.toml"));
    fs::rename(at("shop"), at("moved")).unwrap();
    std::os::unix::fs::symlink(at("victim"), at("shop")).unwrap();
    save(&path, &path.aside("previous")).unwrap();
    replace(&path, &with).unwrap();
    let read = |path: &str| fs::read_to_string(at(path)).unwrap();
    assert_eq!(read("victim/db.toml"), "oracle");
    assert_eq!(read("moved/db.toml"), "postgres");
    put_back(&path.aside("previous"), &path).unwrap();
    remove(&path).unwrap();
    assert_eq!(read("victim/db.toml"), "oracle");
    assert!(!at("moved/db.toml").exists());
}

#[test]
fn a_source_that_became_a_link_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| Place::of_test(&dir.path().join(name));
    let (path, with) = (at("db.toml"), at("postgres.toml"));
    fs::write(path.path(), "oracle").unwrap();
    fs::write(dir.path().join("shadow"), "secret").unwrap();
    std::os::unix::fs::symlink("shadow", with.path()).unwrap();
    assert_eq!(replace(&path, &with).unwrap_err().code(), Code::LS2120);
    assert_eq!(fs::read_to_string(path.path()).unwrap(), "oracle");
}
