//! Where an overlay writes to: its upper directory, as far as it can be seen from here.

use std::path::Path;

use super::block::Context;
use super::mountinfo::option;
use super::report::Mount;
use super::sources::Sources;
use super::subject::Subject;

/// The upper directory of an overlay, and the mount it lies in.
///
/// The path is as the mount namespace that made the overlay saw it: in a container it leads nowhere,
/// or seems to lie in the overlay itself, or to another directory. overlayfs answers `statfs` with
/// the size of the upper's filesystem (fs/overlayfs/super.c `ovl_statfs`), so one of another size is
/// another filesystem.
pub(super) fn upper<'a>(
    context: &'a Context<'_>,
    subject: &dyn Subject,
    mount: &'a Mount,
) -> Option<(&'a Path, &'a Mount)> {
    let directory = option(mount, "upperdir").map(Path::new)?;
    let size = context.sources.filesystem_size(directory)?;
    let upper = context.mounts().by_path(directory)?;
    (upper.id != mount.id && subject.filesystem_size() == Some(size)).then_some((directory, upper))
}

/// Whether the file that was opened is the one in the upper directory.
pub(super) fn holds_file(
    sources: &Sources,
    subject: &dyn Subject,
    mount: &Mount,
    upper: &Path,
) -> bool {
    if subject.is_open_for_writing() {
        return true;
    }
    // A file may be there without its bytes (metacopy), or under another name (redirect_dir).
    if ["metacopy", "redirect_dir"].iter().any(|name| option(mount, name) == Some("on")) {
        return false;
    }
    let Some(path) = subject.path() else { return false };
    let Ok(below) = path.strip_prefix(&mount.point) else { return false };
    let root = mount.root.strip_prefix("/").unwrap_or(&mount.root);
    sources.is_regular_file(&upper.join(root).join(below))
}
