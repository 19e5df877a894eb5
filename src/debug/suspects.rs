//! Suspects: goroutines whose waits, as far as memory tells, only goroutines that wait as well could end.
//!
//! This is what a garbage collector would say, without one. The goroutines that have waited for long enough are *candidates*. What could end
//! the wait of one is a handle: for a receive a sender, for a send a receiver (or a sender, which may close), for a group whoever counts down.
//! Handles are counted, and each lies in memory as a word of its own form ([`ChannelLayout`], [`GroupLayout`]). So all memory that the program can
//! write to is searched:
//!
//! - M1: *reachable* is everything outside the stacks of candidates; then the stack of a candidate once its wait may end, or once a word that
//!   points into it is reachable: what lies on it may have been lent.
//! - M2: a wait may end if one of its words is reachable, or if fewer of them are found than there are handles: the rest is somewhere that was
//!   not looked at, in a register for instance.
//! - M3: what is left when nothing changes any more is suspected. Joins and scopes are suspected with those whose end they wait for.
//!
//! Heaps are not followed but taken as reachable whole, so what is said errs towards silence: a handle in a box, behind an `Arc`, in a table or
//! in the buffer of a channel keeps its waiters from being suspected, whoever owns that box, and so does a word that is left in memory which was
//! freed. What remains as a way to be wrong is a handle that is nowhere in memory as itself (in a register of a running thread, packed, in memory
//! shared with devices) or that moves during the search, while as many words of former handles lie on the stacks of candidates. So
//! this is suspicion, and never called more.
//!
//! What is passed over in the search, because nothing of the program's lives there:
//!
//! - stacks that are in use, below what is used; stacks that are not;
//! - slots, and the objects that candidates wait on: they point to the waiters;
//! - the task of a candidate: its closure has been moved to the stack, and what is left there is a copy;
//! - of workers' own stacks and the stack that this runs on, what is below the frames of the loop and of the caller.
//!
//! The search takes a while and the program goes on. Afterwards everybody is looked at again: who has not waited all the while is no candidate,
//! and its whole stack is searched.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt, io,
    panic::Location,
    sync::Arc,
    time::Duration,
};

use super::{
    census::{Census, CensusEntry, Traces},
    leaks::{self, Bond, GoroutineInfo, Heading, Waiting},
    memory::{self, Hidden, Memory, Span},
};
use crate::{
    chan::allocation::ChannelLayout,
    runtime::{
        blocking::blocking_io,
        lifecycle::{self, RuntimeInner},
        slot::Slot,
        task::TaskRef,
        wait::{Reason, Wait},
    },
    select::{engine, operation::Counterpart},
    stack::Metadata,
    sync::GroupLayout,
};

/// Less than this cannot be told from having run meanwhile.
const LEAST: Duration = Duration::from_millis(10);

/// Handles that could end a wait: how they look in memory, and where they are counted.
#[derive(Clone, Debug)]
pub(crate) struct Needed {
    word: Hidden,
    count: Hidden,
    kind: HandleKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandleKind {
    Senders,
    Receivers,
    /// Of a `WaitGroup`: itself and its guards.
    Guards,
    /// Of a scope: each has one word at least.
    Children,
}

impl HandleKind {
    fn text(self) -> &'static str {
        match self {
            Self::Senders => "senders",
            Self::Receivers => "receivers",
            Self::Guards => "guards of the group, and itself",
            Self::Children => "goroutines of the scope",
        }
    }
}

/// What one wait depends on.
#[derive(Clone, Debug)]
enum Needs {
    /// It does not wait, or may be woken by what is not looked for here.
    Open,
    /// Nobody: E1, E2 of `leaks`.
    Nothing,
    EndOf(u64),
    Handles(Vec<Needed>),
}

/// What a census notes of a goroutine for this module.
#[derive(Clone)]
pub(crate) struct Stake {
    needs: Needs,
    slot: &'static Slot,
    /// The bytes at the top of its stack that are in use.
    depth: usize,
    /// What is passed over: objects and the task.
    passed: Vec<Span>,
}

impl fmt::Debug for Stake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stake").field("needs", &self.needs).finish_non_exhaustive()
    }
}

impl Stake {
    /// Called on the goroutine's worker, between two goroutines.
    pub(crate) fn of(slot: &'static Slot, task: TaskRef) -> Self {
        let (start, size) = task.extent();
        let mut passed = vec![Span::new(start, start + size)];
        let needs = match Bond::of(slot, task) {
            Bond::Nothing => Needs::Nothing,
            Bond::EndOf(id) => Needs::EndOf(id),
            Bond::Open if slot.has_timer() => Needs::Open,
            Bond::Open => Needs::of(slot, &mut passed),
        };
        Self { needs, slot, depth: slot.depth(), passed }
    }

    /// The part of the stack that is in use.
    fn used(&self) -> Span {
        let top = self.slot.bounds().top();
        Span::new(top - self.depth, top)
    }

    /// The part that is not.
    fn unused(&self) -> Span {
        let bounds = self.slot.bounds();
        Span::new(bounds.limit(), bounds.top() - self.depth)
    }
}

impl Needs {
    fn of(slot: &'static Slot, passed: &mut Vec<Span>) -> Self {
        // An `Arc` lies in memory as the address of its two counts, with the object behind them. Where that does not hold, nothing is found
        // and nothing is said.
        const BEFORE: usize = 2 * size_of::<usize>();
        let Wait { reason, object } = slot.wait();
        let mut needed = Vec::new();
        let mut need = |(word, count), kind| {
            needed.push(Needed { word: Hidden::new(word), count: Hidden::new(count), kind });
        };
        let mut note = |counterpart| match counterpart {
            Counterpart::Receivers(layout) => {
                need(layout.receivers(), HandleKind::Receivers);
                need(layout.senders(), HandleKind::Senders);
                passed.push(Span::new(layout.start(), layout.start() + ChannelLayout::SPAN));
                true
            }
            Counterpart::Senders(layout) => {
                need(layout.senders(), HandleKind::Senders);
                passed.push(Span::new(layout.start(), layout.start() + ChannelLayout::SPAN));
                true
            }
            Counterpart::Nothing => true,
            Counterpart::Timer => false,
        };
        let judged = match reason {
            Reason::ChanSend => note(Counterpart::Receivers(ChannelLayout::of_channel(object))),
            Reason::ChanRecv => note(Counterpart::Senders(ChannelLayout::of_channel(object))),
            Reason::Select if object != 0 => {
                // SAFETY: its worker is here, so it does not go on; and `Select` with an object is a list.
                let counterparts = unsafe { engine::counterparts(object) };
                // What is noted next has gaps, which would be filled with addresses of its arms.
                memory::wipe();
                counterparts.into_iter().all(note)
            }
            Reason::WaitGroup => {
                let layout = GroupLayout::of_group(object);
                need(layout.guards(), HandleKind::Guards);
                passed.push(Span::new(layout.start(), layout.start() + GroupLayout::SPAN));
                true
            }
            Reason::Scope => {
                need((object - BEFORE, object), HandleKind::Children);
                true
            }
            _ => false,
        };
        if judged { Self::Handles(needed) } else { Self::Open }
    }
}

/// Where a word was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum FoundIn {
    /// In what is reachable (M1).
    Outside,
    /// On the stack of this candidate.
    Stack(usize),
}

/// What the search looks for, and what it has found.
struct Search {
    /// Sorted; with the index of the word in `found`.
    words: Vec<Hidden>,
    /// Used parts of candidates' stacks, sorted; with their candidates.
    stacks: Vec<(Span, usize)>,
    /// What is not between these is neither a word nor points into a stack.
    lowest: Hidden,
    highest: Hidden,
    /// For each word: how many, and where.
    found: Vec<HashMap<FoundIn, usize>>,
    /// For each candidate: from where its stack is pointed into.
    lent: Vec<HashSet<FoundIn>>,
}

impl Search {
    fn new(candidates: &[CensusEntry]) -> Self {
        let mut words: Vec<Hidden> = candidates.iter().flat_map(needed).map(|needed| needed.word).collect();
        words.sort_unstable_by_key(|word| word.get());
        words.dedup();
        let mut stacks: Vec<(Span, usize)> =
            candidates.iter().enumerate().map(|(index, one)| (stake(one).used(), index)).collect();
        stacks.sort_unstable_by_key(|(span, _)| span.start());
        // Both are sorted, and no stack overlaps another.
        let lowest_word = words.first().map(|word| word.get());
        let highest_word = words.last().map(|word| word.get());
        let lowest_start = stacks.first().map(|(span, _)| span.start());
        let highest_end = stacks.last().map(|(span, _)| span.end());
        let lowest = lowest_word.into_iter().chain(lowest_start).min().unwrap_or(0);
        let highest = highest_word.into_iter().chain(highest_end).max().unwrap_or(0);
        Self {
            found: vec![HashMap::new(); words.len()],
            lent: vec![HashSet::new(); candidates.len()],
            lowest: Hidden::new(lowest),
            highest: Hidden::new(highest),
            words,
            stacks,
        }
    }

    fn index(&self, word: Hidden) -> Option<usize> {
        self.words.binary_search_by(|one| one.get().cmp(&word.get())).ok()
    }

    fn search(&mut self, memory: &mut Memory, span: Span, found_in: FoundIn) {
        let (lowest, highest) = (self.lowest.get(), self.highest.get());
        memory.scan(span.start(), span.end(), |word| {
            if lowest <= word && word <= highest {
                self.look(Hidden::new(word), found_in);
            }
        });
    }

    fn look(&mut self, word: Hidden, found_in: FoundIn) {
        if let Some(index) = self.index(word) {
            *self.found[index].entry(found_in).or_default() += 1;
        }
        let after = self.stacks.partition_point(|(span, _)| span.start() <= word.get());
        if let Some((span, candidate)) = after.checked_sub(1).map(|at| &self.stacks[at])
            && span.contains(word.get())
            && found_in != FoundIn::Stack(*candidate)
        {
            self.lent[*candidate].insert(found_in);
        }
    }
}

fn stake(entry: &CensusEntry) -> &Stake {
    entry.stake.as_ref().expect("the census was asked for stakes")
}

fn needed(entry: &CensusEntry) -> &[Needed] {
    match &stake(entry).needs {
        Needs::Handles(needed) => needed,
        _ => &[],
    }
}

/// All goroutines of the process, with stakes, and the workers' loops.
fn census() -> (Vec<CensusEntry>, Vec<Hidden>) {
    let look = |runtime: &Arc<RuntimeInner>| Census::of(runtime, Traces::Stakes);
    let mut all = (Vec::new(), Vec::new());
    for census in lifecycle::runtimes().iter().filter(|runtime| runtime.alive() > 0).map(look) {
        all.0.extend(census.entries);
        all.1.extend(census.loops);
    }
    all
}

/// Whether `later` has waited since `earlier` was seen.
fn still_waits(earlier: &CensusEntry, later: &CensusEntry) -> bool {
    earlier.waited >= LEAST
        && earlier.wait.reason == later.wait.reason
        && earlier.wait.object == later.wait.object
        && later.waited >= earlier.waited
}

/// Everything that this notes on the stack lies below its own frame, which is passed over to here (Y1 of `memory`).
#[inline(never)]
fn look(least: Duration) -> io::Result<Suspects> {
    let here = std::hint::black_box(0_u8);
    let suspects = look_below(least, (&raw const here).addr());
    // The thread goes on to other things, and another look at its stack is to find nothing of this one.
    memory::wipe();
    suspects
}

#[inline(never)]
fn look_below(least: Duration, here: usize) -> io::Result<Suspects> {
    let mut memory = Memory::open()?;
    let least = least.max(LEAST);
    let (entries, loops) = census();
    let is_candidate = |entry: &CensusEntry| match &stake(entry).needs {
        Needs::Open => false,
        Needs::Nothing | Needs::EndOf(_) => entry.waited >= LEAST,
        Needs::Handles(_) => entry.waited >= least,
    };
    let (candidates, others): (Vec<CensusEntry>, Vec<CensusEntry>) = entries.into_iter().partition(is_candidate);
    if candidates.iter().all(|one| needed(one).is_empty()) {
        return Ok(Suspects::default());
    }
    let mut search = Search::new(&candidates);

    // What is passed over.
    let mut passed = vec![memory.buffer()];
    passed.extend(candidates.iter().flat_map(|one| stake(one).passed.iter().copied()));
    passed.extend(candidates.iter().map(|one| stake(one).used()));
    passed.extend(candidates.iter().chain(&others).map(|one| stake(one).unused()));
    let mut idle = Vec::new();
    lifecycle::each_slot(|slot| {
        let start = std::ptr::from_ref(slot).addr();
        passed.push(Span::new(start, start + size_of::<Slot>()));
        if slot.worker_address().is_null() {
            idle.push(slot);
            passed.push(Span::new(slot.bounds().limit(), slot.bounds().top()));
        }
    });
    let regions = Memory::regions()?;
    for frame in loops.iter().map(|frame| frame.get()).chain([here]) {
        let region = regions.iter().find(|region| region.contains(frame));
        passed.extend(region.map(|region| Span::new(region.start(), frame)));
    }
    passed.sort_unstable_by_key(Span::start);

    for region in &regions {
        let mut at = region.start();
        let from = passed.partition_point(|span| span.end() <= at && span.start() < at);
        for span in passed[from..].iter().take_while(|span| span.start() < region.end()) {
            if span.start() > at {
                search.search(&mut memory, Span::new(at, span.start()), FoundIn::Outside);
            }
            at = at.max(span.end());
        }
        search.search(&mut memory, Span::new(at, region.end().max(at)), FoundIn::Outside);
    }
    for (index, one) in candidates.iter().enumerate() {
        search.search(&mut memory, stake(one).used(), FoundIn::Stack(index));
    }

    // Everybody once more.
    let later: HashMap<u64, CensusEntry> = census().0.into_iter().map(|entry| (entry.id, entry)).collect();
    let waits_on = |one: &CensusEntry| later.get(&one.id).is_some_and(|later| still_waits(one, later));
    let whole = |slot: &Slot| Span::new(slot.bounds().limit(), slot.bounds().top());
    for one in others.iter().filter(|one| !waits_on(one)) {
        search.search(&mut memory, whole(stake(one).slot), FoundIn::Outside);
    }
    for slot in idle.into_iter().filter(|slot| !slot.worker_address().is_null()) {
        search.search(&mut memory, whole(slot), FoundIn::Outside);
    }
    let waits: Vec<bool> = candidates.iter().map(waits_on).collect();
    let counts = |needed: &Needed| memory.word(needed.count.get());
    let stuck = mark(&candidates, waits, &search, counts);
    Ok(Suspects::new(candidates, &stuck, &search, counts))
}

/// M1 to M3: for each candidate whether it is left.
fn mark(
    candidates: &[CensusEntry],
    mut stuck: Vec<bool>,
    search: &Search,
    count: impl Fn(&Needed) -> Option<usize>,
) -> Vec<bool> {
    let index_of: HashMap<u64, usize> = candidates.iter().enumerate().map(|(index, one)| (one.id, index)).collect();
    let mut reachable: Vec<bool> = stuck.iter().map(|stuck| !stuck).collect();
    loop {
        let before = (stuck.clone(), reachable.clone());
        let outside = |found_in: &FoundIn| match found_in {
            FoundIn::Outside => true,
            FoundIn::Stack(index) => before.1[*index],
        };
        for (index, one) in candidates.iter().enumerate() {
            reachable[index] |= !stuck[index] || search.lent[index].iter().any(outside);
            let unreachable = |needed: &Needed| {
                let Some(found) = search.index(needed.word).map(|word| &search.found[word]) else { return false };
                // None is left: it is about to be woken.
                let enough = |found| count(needed).is_some_and(|count| count > 0 && count <= found);
                match needed.kind {
                    // Only children have such a word, each while it lives; and one that may go on is not counted.
                    HandleKind::Children => {
                        let child = |found_in: &&FoundIn| **found_in != FoundIn::Stack(index) && !outside(found_in);
                        enough(found.keys().filter(child).count())
                    }
                    _ => !found.keys().any(outside) && enough(found.values().sum()),
                }
            };
            stuck[index] &= match &stake(one).needs {
                Needs::Open => false,
                Needs::Nothing => true,
                Needs::EndOf(id) => index_of.get(id).is_some_and(|&other| stuck[other]),
                Needs::Handles(needed) => needed.iter().all(unreachable),
            };
        }
        if before == (stuck.clone(), reachable.clone()) {
            return stuck;
        }
    }
}

/// Goroutines that [`suspects`] has found, in groups: those that were started at one place and wait for the same kind of thing.
///
/// Prints as a report that says what to look at.
#[derive(Clone, Debug, Default)]
pub struct Suspects {
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Group {
    started_at: &'static Location<'static>,
    /// The longest wait first.
    entries: Vec<CensusEntry>,
    /// Of that one: what was counted, how many, and how many words were found.
    handles: Vec<(&'static str, usize, usize)>,
}

impl Suspects {
    fn new(
        candidates: Vec<CensusEntry>,
        stuck: &[bool],
        search: &Search,
        count: impl Fn(&Needed) -> Option<usize>,
    ) -> Self {
        let proven = leaks::never_end(candidates.iter());
        let mut groups: BTreeMap<(&str, u32, u32, &str), Group> = BTreeMap::new();
        let suspected = candidates.into_iter().zip(stuck).filter(|(one, stuck)| {
            // A main goroutine is part of the marking and never named: it may wait for the end of the process on purpose.
            **stuck && !proven.contains(&one.id) && !leaks::is_main(one.id)
        });
        for (one, _) in suspected {
            let at = one.started_at;
            let group = groups
                .entry((at.file(), at.line(), at.column(), one.wait.reason.text()))
                .or_insert_with(|| Group { started_at: at, entries: Vec::new(), handles: Vec::new() });
            group.entries.push(one);
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        for group in &mut groups {
            group.entries.sort_by_key(|one| (std::cmp::Reverse(one.waited), one.id));
            for needed in needed(&group.entries[0]) {
                let found = search.index(needed.word).map_or(0, |word| search.found[word].values().sum());
                group.handles.push((needed.kind.text(), count(needed).unwrap_or(0), found));
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.entries[0].waited));
        Self { groups }
    }

    /// How many goroutines there are in all groups.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.entries.len()).sum()
    }

    /// Whether there are none.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The groups, the one with the longest wait first.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn iter(&self) -> impl Iterator<Item = Suspect<'_>> {
        self.groups.iter().map(Suspect)
    }
}

/// One group of [`Suspects`].
#[derive(Clone, Copy)]
pub struct Suspect<'a>(&'a Group);

impl<'a> Suspect<'a> {
    /// Where they were started.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn started_at(&self) -> &'static Location<'static> {
        self.0.started_at
    }

    /// What they wait for, in the words of a dump.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn waits_for(&self) -> &'static str {
        self.0.entries[0].wait.reason.text()
    }

    /// For how long the first of them has waited.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn waited(&self) -> Duration {
        self.0.entries[0].waited
    }

    /// The goroutines, the one that has waited longest first.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn goroutines(&self) -> impl Iterator<Item = GoroutineInfo<'a>> {
        self.0.entries.iter().map(GoroutineInfo::new)
    }
}

impl fmt::Debug for Suspect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suspect")
            .field("started_at", &format_args!("{}", self.started_at()))
            .field("waits_for", &self.waits_for())
            .field("goroutines", &self.0.entries.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Suspects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// How many of a group are named.
        const NAMED: usize = 8;
        if self.is_empty() {
            return f.write_str("no goroutine is suspected of waiting for ever\n");
        }
        writeln!(
            f,
            "{} {} to wait for ever: only goroutines that wait as well could change that",
            leaks::counted(self.len()),
            if self.len() == 1 { "seems" } else { "seem" },
        )?;
        for group in &self.groups {
            let first = &group.entries[0];
            writeln!(
                f,
                "\n{} started at {}, {} ms at the longest:",
                group.entries.len(),
                group.started_at,
                first.waited.as_millis()
            )?;
            for one in group.entries.iter().take(NAMED) {
                writeln!(f, "    {}: {}", Heading(one), Waiting(one))?;
            }
            if group.entries.len() > NAMED {
                writeln!(f, "    and {} more", group.entries.len() - NAMED)?;
            }
            for (kind, counted, found) in &group.handles {
                writeln!(f, "    {kind}: {counted}; words on the stacks of these goroutines: {found}; elsewhere: 0")?;
            }
        }
        f.write_str(
            "\nThis is suspicion, not proof. Look at who should have sent, received, closed or counted down, and whether it ended early; \
             drop the handles that a waiting goroutine holds of its own channel; or give the wait a way out: a context, a time limit, \
             room in the channel. `debug::dump` shows where each waits.\n",
        )
    }
}

/// Goroutines that have waited for `least` or longer and that, as far as memory tells, will wait for ever: every handle that could end
/// their waits is on the stack of a goroutine that is among them, or that [`leaks`](super::leaks()) names.
///
/// This is the second tier of the leak report, in the manner of Go's goroutine-leak profile: it judges waits on channels (send, receive, `select!`),
/// on a `WaitGroup`, on a [`scope`](crate::scope()) and on a join. It searches the memory of the process for the handles, as a conservative garbage
/// collector does, so it may be wrong, and says *suspected*, never more. False alarms are rare. Often it is silent about a leak, since a handle in a
/// box, in a table or behind an `Arc` counts as in use. Choose `least` such that all healthy waits of the program end within that time; it is 10
/// milliseconds at least. `docs/diagnostics.md` says what was measured.
///
/// Locks, semaphores, condition variables and barriers have no handles that are counted, and a `park` may be ended by a copied handle: a
/// goroutine that waits for one of these is not judged, and counts as one that may go on. Main goroutines are never named.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::time::Duration;
///
/// // The loop ends when the last sender is gone, and the goroutine itself keeps one.
/// fn start() -> oxigo::JoinHandle<()> {
///     let (tx, rx) = oxigo::unbuffered::<u32>();
///     oxigo::go(move || {
///         for number in &rx {
///             println!("{number}");
///         }
///         drop(tx);
///     })
/// }
///
/// let stuck = start();
/// # oxigo::time::sleep(Duration::from_millis(50));
/// let report = oxigo::debug::suspects(Duration::from_millis(20))?;
/// // Prints what was counted and found, and what to do.
/// println!("{report}");
/// # drop(stuck);
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// When the process cannot read its own memory through the system: on systems other than Linux, without `/proc`, and with pages larger than 256 KiB.
/// `OutOfMemory` on a goroutine when no thread can be started to look.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread, for the time that looking takes: about a third of a second for each gigabyte of memory in use. No worker is
/// stopped for longer than a few milliseconds at a time.
pub fn suspects(least: Duration) -> io::Result<Suspects> {
    // A goroutine that waited here would hold its own worker, which could not answer.
    blocking_io(|| look(least))
}
