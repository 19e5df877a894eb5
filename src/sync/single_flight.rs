//! `SingleFlight`: one call for all who ask for the same thing at the same time.
//!
//! - F1: a call is in the map from its beginning until it has ended, or is forgotten. Who finds it there waits for its outcome and shares it.
//!   It is taken out before it gets the outcome, also when its key panics: looked for by identity then. (A key that panics while the map grows
//!   may cost other calls their entries; that forgets them.)
//! - F2: the map is behind our own [`Mutex`], not a small lock, since hashing and comparing keys is the user's code (P6). Calls and their
//!   values are dropped outside it.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    hash::Hash,
    panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

#[cfg(not(loom))]
use super::Mutex;
use super::{LazyLock, OnceLock};
use crate::facade::{AtomicBool, Ordering::Relaxed};
// In a model to hash and to compare waits for nobody (F2).
#[cfg(loom)]
use crate::util::Lock as Mutex;

/// Runs one call for all callers that ask for the same key at the same time. Go's `singleflight.Group`.
///
/// # Examples
///
/// ```
/// use oxigo::sync::SingleFlight;
///
/// let lookups = SingleFlight::<String, usize>::new();
/// let (length, shared) = lookups.work("ada".to_owned(), || "ada".len());
/// assert_eq!((length, shared), (3, false));
/// ```
pub struct SingleFlight<K, V> {
    calls: LazyLock<Mutex<Calls<K, V>>>,
}

type Calls<K, V> = HashMap<Arc<K>, Arc<Call<V>>>;

struct Call<V> {
    outcome: OnceLock<Result<V, String>>,
    shared: AtomicBool,
}

/// Gives a call an outcome when it is left without one.
struct OutcomeGuard<'a, V>(&'a Call<V>);

impl<V> Drop for OutcomeGuard<'_, V> {
    fn drop(&mut self) {
        let _ = self.0.outcome.set(Err("a call of this key has ended without a value".into()));
    }
}

impl<K: Eq + Hash, V: Clone> SingleFlight<K, V> {
    const_new! {
        /// An object in which no call is running.
        ///
        /// # Blocking
        ///
        /// Never parks.
        pub fn new() -> Self {
            Self { calls: LazyLock::new(|| Mutex::new(HashMap::new())) }
        }
    }

    /// Runs `f` and returns its value; but if a call with an equal key is running, waits for it and returns that call's value. The flag says whether
    /// more than one caller got this value.
    ///
    /// # Panics
    ///
    /// When the call panics: its own caller gets that panic, with its payload. The others get a panic of their own with the text "the call that this
    /// one shares has panicked: …", which ends with the first one's text if that had one. A panic of the key's `Hash` or `Eq` goes through to its
    /// caller; one at the end of a call counts as the call's.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, while another one runs the call. A call for the same key from within `f` waits for ever.
    #[track_caller]
    pub fn work<F: FnOnce() -> V>(&self, key: K, f: F) -> (V, bool) {
        let key = Arc::new(key);
        let mut calls = self.calls.lock();
        if let Some(call) = calls.get(&*key).cloned() {
            // ORDERING: Relaxed. Under the lock that the end of the call takes before it looks.
            call.shared.store(true, Relaxed);
            drop(calls);
            return match call.outcome.wait() {
                Ok(value) => (value.clone(), true),
                Err(text) => panic!("{text}"),
            };
        }
        let call = Arc::new(Call { outcome: OnceLock::new(), shared: AtomicBool::new(false) });
        calls.insert(Arc::clone(&key), Arc::clone(&call));
        drop(calls);
        // Whatever unwinds below, such as the `Drop` of a value: nobody waits for ever.
        let _guard = OutcomeGuard(&call);
        let result = catch_unwind(AssertUnwindSafe(f));
        let mut calls = self.calls.lock();
        let removed = catch_unwind(AssertUnwindSafe(|| {
            let is_there = calls.get(&*key).is_some_and(|current| Arc::ptr_eq(current, &call));
            if is_there { calls.remove_entry(&*key) } else { None }
        }));
        if removed.is_err() {
            // This neither hashes nor compares, and drops nothing of the user's: `key` and `call` are there for longer.
            calls.retain(|_, current| !Arc::ptr_eq(current, &call));
        }
        // ORDERING: Relaxed, as above. From here on nobody finds the call.
        let shared = call.shared.load(Relaxed);
        drop(calls);
        // The call's own panic goes before that of its key.
        match result.and_then(|value| removed.map(|_| value)) {
            Ok(value) if shared => {
                // A clone that panics must not leave the others without an outcome.
                let mine = catch_unwind(AssertUnwindSafe(|| value.clone()));
                let _ = call.outcome.set(Ok(value));
                (mine.unwrap_or_else(|payload| resume_unwind(payload)), true)
            }
            Ok(value) => (value, false),
            Err(payload) => {
                let _ = call.outcome.set(Err(text_of(&*payload)));
                resume_unwind(payload)
            }
        }
    }

    /// Makes the next [`work`](Self::work) with this key run its own call, even if one is running now.
    ///
    /// # Blocking
    ///
    /// May wait for a moment while another one uses the table of calls.
    pub fn forget(&self, key: &K) {
        let removed = self.calls.lock().remove_entry(key);
        drop(removed);
    }
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    match text {
        Some(text) => format!("the call that this one shares has panicked: {text}"),
        None => "the call that this one shares has panicked".to_owned(),
    }
}

// A panic leaves the map whole and no call without an outcome (F1); keys and values are seen by shared reference only.
impl<K: RefUnwindSafe, V: UnwindSafe + RefUnwindSafe> RefUnwindSafe for SingleFlight<K, V> {}

impl<K: Eq + Hash, V: Clone> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").finish_non_exhaustive()
    }
}
