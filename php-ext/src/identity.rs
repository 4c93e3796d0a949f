//! The user and the group that a server's processes run as. Workerman makes them what they are; here they are looked up, and
//! a process that has the right may act as them for a moment.

use heartbus_core::error::{Error, ErrorKind};
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups, setegid, seteuid, setgroups};
use std::ffi::CString;

pub(crate) struct Identity {
    /// By their names, as Workerman wants them; empty: as the process is.
    pub user: String,
    pub group: String,
    uid: Uid,
    gid: Gid,
}

impl Identity {
    /// By names or numbers; empty ones are those of the process, and a group that is not named is the user's first.
    ///
    /// # Errors
    /// `Config`: there is no such user or group, or this process may not become it.
    pub(crate) fn named(user: &str, group: &str) -> Result<Self, Error> {
        let (own_user, own_group) = (geteuid(), getegid());
        let found = if user.is_empty() { None } else { Some(user_named(user)?) };
        let of_group = if group.is_empty() { None } else { Some(group_named(group)?) };
        let uid = found.as_ref().map_or(own_user, |found| found.uid);
        let gid = match (&of_group, &found) {
            (Some(group), _) => group.gid,
            (None, Some(user)) if uid != own_user => user.gid,
            (None, _) => own_group,
        };
        if !own_user.is_root() && (uid != own_user || gid != own_group) {
            let wanted = [user, group].into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(":");
            return Err(Error::new(ErrorKind::Config, format!("user, group: only root can run a server as {wanted}")));
        }
        Ok(Self {
            user: found.map_or_else(String::new, |found| found.name),
            group: of_group.map_or_else(String::new, |group| group.name),
            uid,
            gid,
        })
    }

    fn is_ours(&self) -> bool {
        self.uid == geteuid() && self.gid == getegid()
    }

    /// # Errors
    /// `Config`: where nobody makes processes for the server, this one would have to be that user's already.
    pub(crate) fn check_is_ours(&self) -> Result<(), Error> {
        if self.is_ours() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Config, "'user' and 'group' need Workerman, which makes the processes: this one is another user's"))
    }

    /// Does something with the rights of that user and group. The process must have no other thread that minds.
    ///
    /// # Errors
    /// Those of `act`; `Config` when the system does not let this process become them.
    pub(crate) fn act_as<T>(&self, act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        if self.is_ours() {
            return act();
        }
        let refused = |errno: nix::Error| Error::new(ErrorKind::Config, format!("user, group: {}", errno.desc()));
        let before = Before { uid: geteuid(), gid: getegid(), groups: getgroups().map_err(refused)? };
        let name = User::from_uid(self.uid).ok().flatten().and_then(|user| CString::new(user.name).ok()).unwrap_or_default();
        setgroups(&getgrouplist(&name, self.gid).map_err(refused)?).map_err(refused)?;
        let become_them = setegid(self.gid).and_then(|()| seteuid(self.uid));
        become_them.map_err(refused)?;
        let done = act();
        drop(before);
        done
    }
}

/// What the process was, and is again when this is dropped.
struct Before {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Drop for Before {
    fn drop(&mut self) {
        // Root may always become root again, and then everything else.
        let restored = seteuid(self.uid).and_then(|()| setegid(self.gid)).and_then(|()| setgroups(&self.groups));
        if let Err(errno) = restored {
            tracing::error!(error = errno.desc(), "The process cannot be root again");
        }
    }
}

fn user_named(name: &str) -> Result<User, Error> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    found.ok().flatten().ok_or_else(|| Error::new(ErrorKind::Config, format!("user: there is no user {name}")))
}

fn group_named(name: &str) -> Result<Group, Error> {
    let found = match name.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(name),
    };
    found.ok().flatten().ok_or_else(|| Error::new(ErrorKind::Config, format!("group: there is no group {name}")))
}
