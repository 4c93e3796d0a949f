//! Filters by level, so that those that match a name are found without walking all of them.
//!
//! Owns the tree. What stands at a filter is whoever uses it's: the bus counts interest there, an I/O thread its subscribers.

use crate::wire::topic;
use std::collections::HashMap;

/// What a level takes in memory that is the only one below another.
pub(super) const LEVEL_BYTES: usize = 256;

/// At most so many levels of so many filters, of which none has more than `deepest`, are looked at for a name: with each level that it has twice
/// as many, for its name and for `+`.
pub(super) fn most_levels(name: &str, deepest: usize, filters: usize) -> u64 {
    if filters == 0 {
        return 0;
    }
    let all = (filters as u64).saturating_mul(deepest as u64);
    let deep = levels(name).min(deepest) as u32;
    1_u64.checked_shl(deep + 1).map_or(all, |most| most.min(all))
}

pub(super) fn levels(filter: &str) -> usize {
    1 + filter.bytes().filter(|byte| *byte == b'/').count()
}

/// A tree of filters, exact or not, with something at each.
#[derive(Debug)]
pub(super) struct FilterTree<T> {
    root: Level<T>,
    len: usize,
    /// No filter had more levels.
    deepest: usize,
}

#[derive(Debug)]
struct Level<T> {
    /// What stands at the filter that ends here,
    here: Option<T>,
    /// and at the one that goes on with `#`.
    rest: Option<T>,
    /// `+` is a child as the names are.
    children: HashMap<Box<str>, Box<Self>>,
}

impl<T> Default for FilterTree<T> {
    fn default() -> Self {
        Self { root: Level::default(), len: 0, deepest: 0 }
    }
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self { here: None, rest: None, children: HashMap::new() }
    }
}

impl<T> FilterTree<T> {
    /// Filters at which something stands.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn entry(&mut self, filter: &str) -> &mut T
    where
        T: Default,
    {
        self.deepest = self.deepest.max(levels(filter));
        let len = &mut self.len;
        let mut level = &mut self.root;
        let mut parts = filter.split('/');
        let place = loop {
            match parts.next() {
                None => break &mut level.here,
                Some("#") => break &mut level.rest,
                Some(part) => level = level.children.entry(part.into()).or_default(),
            }
        };
        place.get_or_insert_with(|| {
            *len += 1;
            T::default()
        })
    }

    pub(super) fn get(&self, filter: &str) -> Option<&T> {
        let mut level = &self.root;
        for part in filter.split('/') {
            if part == "#" {
                return level.rest.as_ref();
            }
            level = level.children.get(part)?;
        }
        level.here.as_ref()
    }

    pub(super) fn get_mut(&mut self, filter: &str) -> Option<&mut T> {
        let mut level = &mut self.root;
        for part in filter.split('/') {
            if part == "#" {
                return level.rest.as_mut();
            }
            level = level.children.get_mut(part)?;
        }
        level.here.as_mut()
    }

    /// Takes out what stands at a filter, and the levels that lead nowhere then.
    pub(super) fn remove(&mut self, filter: &str) -> Option<T> {
        let mut parts: Vec<&str> = filter.split('/').collect();
        let is_rest = parts.last() == Some(&"#");
        if is_rest {
            parts.pop();
        }
        let removed = self.root.remove(&parts, is_rest);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// At most so many levels are looked at for a name.
    pub(super) fn levels_looked_at(&self, name: &str) -> u64 {
        most_levels(name, self.deepest, self.len)
    }

    /// Shows what stands at each filter that matches a name.
    pub(super) fn matching<'a>(&'a self, name: &str, visit: &mut impl FnMut(&'a T)) {
        self.root.matching(name.split('/'), topic::is_of_server(name), visit);
    }
}

impl<T> Level<T> {
    fn remove(&mut self, parts: &[&str], is_rest: bool) -> Option<T> {
        let Some((first, others)) = parts.split_first() else {
            return if is_rest { self.rest.take() } else { self.here.take() };
        };
        let child = self.children.get_mut(*first)?;
        let removed = child.remove(others, is_rest);
        if child.here.is_none() && child.rest.is_none() && child.children.is_empty() {
            self.children.remove(*first);
            self.children.shrink_to(2 * self.children.len());
        }
        removed
    }

    /// As deep as a name has levels, which are 256 at most.
    fn matching<'a, 'n>(
        &'a self,
        mut levels: impl Iterator<Item = &'n str> + Clone,
        is_first_of_server: bool,
        visit: &mut impl FnMut(&'a T),
    ) {
        if let (Some(rest), false) = (&self.rest, is_first_of_server) {
            visit(rest);
        }
        let Some(level) = levels.next() else {
            if let Some(here) = &self.here {
                visit(here);
            }
            return;
        };
        // Of what is no name, a level that is `+` is the wildcard itself: it is not gone through twice.
        let wild = if is_first_of_server || level == "+" { None } else { self.children.get("+") };
        for child in [self.children.get(level), wild].into_iter().flatten() {
            child.matching(levels.clone(), false, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_filter_that_is_gone_leaves_nothing_behind() {
        let mut tree = FilterTree::<u32>::default();
        for filter in ["a/b/c", "a/+/c", "a/#", "#", "a"] {
            *tree.entry(filter) += 1;
        }
        assert_eq!((tree.len(), tree.get("a/#"), tree.get("a/b")), (5, Some(&1), None));
        assert_eq!((tree.get_mut("#").copied(), tree.get_mut("b/#").copied()), (Some(1), None));
        assert_eq!((tree.remove("a/b"), tree.remove("x/#")), (None, None));
        for filter in ["a/b/c", "a/+/c", "a/#", "#", "a"] {
            assert_eq!((tree.remove(filter), tree.remove(filter)), (Some(1), None));
        }
        assert!(tree.len() == 0 && tree.root.children.is_empty() && tree.root.here.is_none() && tree.root.rest.is_none());
    }

    #[test]
    fn what_is_no_name_takes_no_more_steps_than_it_has_levels() {
        let all = ["+"; 100].join("/");
        let mut tree = FilterTree::<u32>::default();
        *tree.entry(&all) += 1;
        let mut found = 0;
        tree.matching(&all, &mut |_| found += 1);
        assert_eq!(found, 1);
    }

    fn text(of: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(of), 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn exactly_the_filters_that_match_are_found(
            filters in prop::collection::vec(text(&["a", "b", "", "$s", "+", "#"]), 0..20),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
            name in text(&["a", "b", "", "$s", "c"]),
        ) {
            let filters: Vec<String> = filters.into_iter().filter(|filter| topic::Filter::parse(filter).is_ok()).collect();
            let mut tree = FilterTree::<Option<String>>::default();
            let mut model = BTreeMap::new();
            for filter in &filters {
                *tree.entry(filter) = Some(filter.clone());
                model.insert(filter.clone(), ());
            }
            for index in gone.iter().filter(|_| !filters.is_empty()) {
                let filter = index.get(&filters);
                prop_assert_eq!(tree.remove(filter).flatten().is_some(), model.remove(filter).is_some());
            }
            prop_assert_eq!(tree.len(), model.len());
            let mut found = Vec::new();
            tree.matching(&name, &mut |filter| found.extend(filter.clone()));
            found.sort();
            let expected: Vec<String> = model.into_keys().filter(|filter| topic::matches(filter, &name)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
