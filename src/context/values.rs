//! The values of a context: a list that grows at the front and is shared with those it grew from.

use std::{
    any::{Any, TypeId},
    collections::BTreeSet,
    sync::Arc,
};

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Values(Option<Arc<Link>>);

struct Link {
    content: Content,
    next: Values,
}

enum Content {
    Value(TypeId, Arc<dyn Any + Send + Sync>),
    /// A whole list, looked through before `next`.
    List(Values),
}

impl Values {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn with<T: Send + Sync + 'static>(&self, value: T) -> Self {
        let content = Content::Value(TypeId::of::<T>(), Arc::new(value));
        Self(Some(Arc::new(Link { content, next: self.clone() })))
    }

    /// These, then `other`'s.
    pub(super) fn or(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            _ => Self(Some(Arc::new(Link { content: Content::List(self.clone()), next: other.clone() }))),
        }
    }

    pub(super) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let mut lists = vec![];
        // Lists that share others may be merged again and again: each is looked through once.
        let mut seen = BTreeSet::new();
        let mut list = self;
        loop {
            let Some(link) = &list.0 else {
                list = lists.pop()?;
                continue;
            };
            match &link.content {
                Content::Value(id, value) if *id == TypeId::of::<T>() => return Arc::clone(value).downcast().ok(),
                Content::Value(..) => list = &link.next,
                Content::List(inner) => {
                    if seen.insert(Arc::as_ptr(link)) {
                        lists.push(&link.next);
                        list = inner;
                    } else {
                        list = lists.pop()?;
                    }
                }
            }
        }
    }
}

/// Lists that are long, or merged many times, are dropped in a loop: a goroutine's stack is small. What comes after a value whose `Drop` panics is
/// in `lists` by then, and so is dropped too.
impl Drop for Values {
    fn drop(&mut self) {
        let mut lists = Vec::from_iter(self.0.take());
        while let Some(link) = lists.pop() {
            if let Some(mut link) = Arc::into_inner(link) {
                if let Content::List(inner) = &mut link.content {
                    lists.extend(inner.0.take());
                }
                lists.extend(link.next.0.take());
            }
        }
    }
}
