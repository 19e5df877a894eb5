//! The arms of `select!`: cut into pieces by hand, so that an error points at the arm and says what was expected.

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

use crate::{Refusal, is_word};

enum Kind {
    Recv(TokenStream),
    Send(TokenStream, TokenStream),
    SendFrom(TokenStream, TokenStream),
}

struct Arm {
    kind: Kind,
    pattern: TokenStream,
    body: TokenStream,
}

struct Default {
    within: Option<TokenStream>,
    body: TokenStream,
}

struct Arms {
    path: TokenStream,
    arms: Vec<Arm>,
    default: Option<Default>,
}

pub(crate) fn expand(input: TokenStream, biased: bool) -> Result<TokenStream, Refusal> {
    Ok(parse(input)?.emit(biased))
}

const EXPECTED: &str = "expected `recv(receiver) -> pattern => body`, `send(sender, value) -> pattern => body`, \
                        `send(sender, from slot) -> pattern => body`, `default => body` or `default(duration) => body`";

fn parse(input: TokenStream) -> Result<Arms, Refusal> {
    let mut tokens = input.into_iter().collect::<Vec<_>>();
    let TokenTree::Group(path) = tokens.remove(0) else { unreachable!("the outer macro passes its path first") };
    let mut arms = Arms { path: path.stream(), arms: Vec::new(), default: None };
    let mut at = 0;
    while at < tokens.len() {
        let TokenTree::Ident(keyword) = &tokens[at] else { return Err(Refusal::new(tokens[at].span(), EXPECTED)) };
        let (keyword, span) = (keyword.to_string(), keyword.span());
        at += 1;
        let operands = match tokens.get(at) {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
                at += 1;
                Some(group.clone())
            }
            _ => None,
        };
        match keyword.as_str() {
            "default" => {
                if arms.default.is_some() {
                    return Err(Refusal::new(span, "a select takes one `default` at most"));
                }
                if is_punct(tokens.get(at), '-') {
                    let text = "`default` receives nothing: expected `=>` and a body";
                    return Err(Refusal::new(tokens[at].span(), text));
                }
                let body = body(&tokens, &mut at, span)?;
                let mut within: Vec<TokenTree> =
                    operands.map_or_else(Vec::new, |group| group.stream().into_iter().collect());
                if is_punct(within.last(), ',') {
                    within.pop();
                }
                let within = (!within.is_empty()).then(|| within.into_iter().collect());
                arms.default = Some(Default { within, body });
            }
            "recv" | "send" => {
                let Some(operands) = operands else {
                    let text = format!("expected the operands of `{keyword}` in parentheses");
                    return Err(Refusal::new(tokens.get(at).map_or(span, TokenTree::span), text));
                };
                let kind = kind(&keyword, &operands)?;
                let pattern = pattern(&tokens, &mut at, span)?;
                let body = body(&tokens, &mut at, span)?;
                arms.arms.push(Arm { kind, pattern, body });
            }
            other => return Err(Refusal::new(span, format!("`{other}` is not an operation of a select: {EXPECTED}"))),
        }
    }
    Ok(arms)
}

fn kind(keyword: &str, operands: &Group) -> Result<Kind, Refusal> {
    let tokens: Vec<TokenTree> = operands.stream().into_iter().collect();
    let mut parts: Vec<Vec<TokenTree>> = vec![Vec::new()];
    for token in tokens {
        if is_punct(Some(&token), ',') {
            parts.push(Vec::new());
        } else {
            parts.last_mut().expect("never empty").push(token);
        }
    }
    if parts.len() > 1 && parts.last().is_some_and(Vec::is_empty) {
        parts.pop();
    }
    let span = operands.span();
    if keyword == "recv" {
        if parts.len() != 1 || parts[0].is_empty() {
            return Err(Refusal::new(span, "expected one receiver: `recv(receiver)`"));
        }
        return Ok(Kind::Recv(parts.remove(0).into_iter().collect()));
    }
    if parts.len() < 2 || parts[0].is_empty() || parts[1].is_empty() {
        return Err(Refusal::new(
            span,
            "expected a sender and a value: `send(sender, value)` or `send(sender, from slot)`",
        ));
    }
    let sender = parts.remove(0).into_iter().collect();
    // A value with commas of its own, such as a path with two type arguments: put together again.
    let mut value = Vec::new();
    for (i, part) in parts.into_iter().enumerate() {
        if i > 0 {
            value.push(Punct::new(',', Spacing::Alone).into());
        }
        value.extend(part);
    }
    // `from slot`, but not an expression that begins with a function or variable called `from`. (`from * x` is read as a slot; as a
    // product it wants parentheses.)
    let from = match value.as_slice() {
        [TokenTree::Ident(from), rest @ ..] if from.to_string() == "from" => match rest {
            [TokenTree::Ident(word), ..] => word.to_string() != "as",
            [TokenTree::Punct(star), TokenTree::Ident(_) | TokenTree::Group(_), ..] => star.as_char() == '*',
            // What a macro of the user's has taken as `$slot:expr`. The parentheses of a call are another kind of group.
            [TokenTree::Group(fragment), ..] => fragment.delimiter() == Delimiter::None,
            _ => false,
        },
        _ => false,
    };
    if let [TokenTree::Ident(from), TokenTree::Punct(and), TokenTree::Ident(word), ..] = value.as_slice()
        && (from.to_string().as_str(), and.as_char(), word.to_string().as_str()) == ("from", '&', "mut")
    {
        return Err(Refusal::new(
            and.span(),
            "write the slot without `&mut`: `from slot`, where `slot` is an `Option`",
        ));
    }
    if from {
        return Ok(Kind::SendFrom(sender, value.into_iter().skip(1).collect()));
    }
    Ok(Kind::Send(sender, value.into_iter().collect()))
}

/// The tokens of what a macro of the user's has taken as one piece, such as `$slot:expr`, which comes in a group without delimiters.
fn bare(token: &TokenTree) -> Vec<TokenTree> {
    match token {
        TokenTree::Group(fragment) if fragment.delimiter() == Delimiter::None => {
            fragment.stream().into_iter().flat_map(|token| bare(&token)).collect()
        }
        token => vec![token.clone()],
    }
}

fn is_block(token: &TokenTree) -> bool {
    matches!(bare(token).as_slice(), [TokenTree::Group(block)] if block.delimiter() == Delimiter::Brace)
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn is_fat_arrow(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), '=') && is_punct(tokens.get(at + 1), '>')
}

fn is_thin_arrow(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), '-') && is_punct(tokens.get(at + 1), '>')
}

/// `-> pattern`, up to the `=>`.
fn pattern(tokens: &[TokenTree], at: &mut usize, arm: Span) -> Result<TokenStream, Refusal> {
    if !is_thin_arrow(tokens, *at) {
        return Err(Refusal::new(
            tokens.get(*at).map_or(arm, TokenTree::span),
            "expected `-> pattern` after the operation",
        ));
    }
    *at += 2;
    let start = *at;
    // Commas inside, as in `Pair::<A, B>(_)`, are not followed by an arm.
    let ends = |at: usize| match tokens.get(at) {
        Some(token) if is_punct(Some(token), ',') => ends_arm(tokens, at),
        Some(_) => is_fat_arrow(tokens, at) || is_operation(tokens, at),
        None => true,
    };
    while !ends(*at) {
        *at += 1;
    }
    if start == *at {
        return Err(Refusal::new(tokens.get(*at).map_or(arm, TokenTree::span), "expected a pattern after `->`"));
    }
    if !is_fat_arrow(tokens, *at) {
        return Err(Refusal::new(tokens[start].span(), "expected `=>` and a body after this pattern"));
    }
    let pattern: TokenStream = tokens[start..*at].iter().cloned().collect();
    // `let` wants alternatives in parentheses.
    if tokens[start..*at].iter().flat_map(bare).any(|token| is_punct(Some(&token), '|')) {
        return Ok(TokenTree::from(Group::new(Delimiter::Parenthesis, pattern)).into());
    }
    Ok(pattern)
}

/// `=> body` and the comma after it.
fn body(tokens: &[TokenTree], at: &mut usize, arm: Span) -> Result<TokenStream, Refusal> {
    if !is_fat_arrow(tokens, *at) {
        return Err(Refusal::new(tokens.get(*at).map_or(arm, TokenTree::span), "expected `=>` and a body"));
    }
    *at += 2;
    let start = *at;
    // A block, alone: a comma may follow.
    if tokens.get(*at).is_some_and(is_block)
        && (tokens.get(*at + 1).is_none_or(|next| is_punct(Some(next), ',')) || begins_arm(tokens, *at + 1))
    {
        *at += 1;
        if is_punct(tokens.get(*at), ',') {
            *at += 1;
        }
        return Ok(TokenStream::from(tokens[start].clone()));
    }
    // An expression: up to a comma that ends the arm. Commas inside, as in `f::<A, B>()`, are not followed by an arm.
    while *at < tokens.len() && !ends_arm(tokens, *at) {
        if is_operation(tokens, *at) {
            let (at, text) = if start == *at {
                (arm, "expected a body after `=>`")
            } else {
                (tokens[*at].span(), "expected a comma before this arm: the body before it has no braces")
            };
            return Err(Refusal::new(at, text));
        }
        *at += 1;
    }
    if start == *at {
        return Err(Refusal::new(arm, "expected a body after `=>`"));
    }
    let body = tokens[start..*at].iter().cloned().collect();
    *at += 1;
    Ok(body)
}

/// Whether a comma is here that ends the arm, and not one inside its body or pattern.
fn ends_arm(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ',') && (at + 1 == tokens.len() || begins_arm(tokens, at + 1))
}

/// Whether an arm begins here, or something that is meant to be one.
fn begins_arm(tokens: &[TokenTree], at: usize) -> bool {
    let Some(TokenTree::Ident(word)) = tokens.get(at) else { return false };
    let word = word.to_string();
    let operation = word == "recv" || word == "send";
    match tokens.get(at + 1) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
            is_fat_arrow(tokens, at + 2) || is_thin_arrow(tokens, at + 2) || operation && is_cut_off(tokens, at + 2)
        }
        _ if operation => is_thin_arrow(tokens, at + 1),
        _ => word == "default" && (is_fat_arrow(tokens, at + 1) || is_cut_off(tokens, at + 1)),
    }
}

/// Whether the beginning of an arm goes no further here.
fn is_cut_off(tokens: &[TokenTree], at: usize) -> bool {
    match tokens.get(at) {
        Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Brace,
        Some(_) => false,
        None => true,
    }
}

/// Whether `recv(…) ->` or `send(…) ->` is here, which no pattern and no expression has.
fn is_operation(tokens: &[TokenTree], at: usize) -> bool {
    let word = tokens.get(at).is_some_and(|token| is_word(token, "recv") || is_word(token, "send"));
    word && matches!(tokens.get(at + 1), Some(TokenTree::Group(_))) && is_thin_arrow(tokens, at + 2)
}

/// What tells a slot that is a plain variable, a field of one, or what such a place refers to, from the others: its tokens, each with where
/// it is resolved, since two variables of one name may come from a macro and from its caller. Other slots have no name.
///
/// Only a span's debug form says where an identifier is resolved (`#3 bytes(5..9)`). Should it read otherwise one day, slots have no names and
/// arms do not share them, which the borrow checker then reports; no arm ever takes another one's slot.
fn slot_name(slot: &TokenStream) -> Option<String> {
    let mut tokens: Vec<TokenTree> = slot.clone().into_iter().collect();
    // All of it or nothing: a group inside, such as `*pointer` before a field, binds its tokens.
    while let [TokenTree::Group(fragment)] = tokens.as_slice()
        && fragment.delimiter() == Delimiter::None
    {
        tokens = fragment.stream().into_iter().collect();
    }
    let place = tokens.iter().position(|token| !is_punct(Some(token), '*'))?;
    let is_path = tokens[place..].iter().enumerate().all(|(i, token)| match token {
        TokenTree::Ident(_) => i % 2 == 0,
        TokenTree::Literal(_) => i % 2 == 0 && i > 0,
        token => i % 2 == 1 && is_punct(Some(token), '.'),
    });
    if !is_path {
        return None;
    }
    let mut name = String::new();
    for token in &tokens {
        name.push_str(&token.to_string());
        if let TokenTree::Ident(word) = token {
            let span = format!("{:?}", word.span());
            let (resolved, _) = span.split_once(" bytes(").filter(|(resolved, _)| resolved.starts_with('#'))?;
            name.push_str(resolved);
        }
        name.push(' ');
    }
    Some(name)
}

struct Out {
    tokens: Vec<TokenTree>,
    at: Span,
}

impl Out {
    fn new() -> Self {
        Self { tokens: Vec::new(), at: Span::mixed_site() }
    }

    /// Our own names, with errors about them shown at `operand`.
    fn at(operand: &TokenStream) -> Self {
        let place = operand.clone().into_iter().next().map_or_else(Span::call_site, |token| token.span());
        Self { tokens: Vec::new(), at: Span::mixed_site().located_at(place) }
    }

    fn extend(&mut self, other: Self) -> &mut Self {
        self.tokens.extend(other.tokens);
        self
    }

    /// Source text of our own, whose names are not the user's.
    fn text(&mut self, text: &str) -> &mut Self {
        let stream: TokenStream = text.parse().expect("the macro's own text is made of tokens");
        self.tokens.extend(stream.into_iter().map(|token| respan(token, self.at)));
        self
    }

    fn stream(&mut self, stream: TokenStream) -> &mut Self {
        self.tokens.extend(stream);
        self
    }

    /// `rest` of the library's module for this macro; `path` leads to the library.
    fn macros(&mut self, path: &TokenStream, rest: &str) -> &mut Self {
        self.stream(path.clone()).text("::__private::macros::").text(rest)
    }

    fn group(&mut self, delimiter: Delimiter, inner: Self) -> &mut Self {
        let mut group = Group::new(delimiter, inner.tokens.into_iter().collect());
        group.set_span(self.at);
        self.tokens.push(group.into());
        self
    }

    fn number(&mut self, number: usize) -> &mut Self {
        self.tokens.push(Literal::usize_suffixed(number).into());
        self
    }

    fn local(&mut self, name: &str, number: usize) -> &mut Self {
        self.tokens.push(Ident::new(&format!("{name}{number}"), self.at).into());
        self
    }
}

/// The same names, with errors about them shown at `place`.
fn located(stream: &TokenStream, place: Span) -> TokenStream {
    let at = |mut token: TokenTree| {
        token.set_span(token.span().located_at(place));
        token
    };
    stream.clone().into_iter().map(at).collect()
}

fn respan(mut token: TokenTree, at: Span) -> TokenTree {
    if let TokenTree::Group(group) = &token {
        let inner = group.stream().into_iter().map(|token| respan(token, at)).collect();
        token = Group::new(group.delimiter(), inner).into();
    }
    token.set_span(at);
    token
}

impl Arms {
    /// ```text
    /// {
    ///     match (&(rx), &(tx), value, &(one), &mut (slot), &(other), …) { (end0, end1, value1, end2, value2, end3, …) => {
    ///         use macros::receiver as oxigo_receiver;
    ///         use macros::sender as oxigo_sender;
    ///         let end0 = oxigo_receiver(end0);
    ///         let mut place0 = macros::Recv::new(end0);
    ///         let end1 = oxigo_sender(end1);
    ///         let mut place1 = macros::Send::new(end1, value1);
    ///         …
    ///         let slot2 = macros::Slot::new(end2, value2);
    ///         let mut place2 = macros::SendFrom::new(&slot2, end2);
    ///         let mut place3 = macros::SendFrom::new(&slot2, end3);
    ///         match macros::run([&mut place0, &mut place1, &mut place2, &mut place3], biased, otherwise) {
    ///             0 => { let pattern = { drop(place1); place0.finish() }; body }
    ///             …
    ///         }
    ///     } }
    /// }
    /// ```
    fn emit(self, biased: bool) -> TokenStream {
        if self.arms.is_empty() && self.default.is_none() {
            let mut out = Out::new();
            out.macros(&self.path, "forever()");
            return out.tokens.into_iter().collect();
        }
        let mut pieces = Pieces::new(self.path);
        for (i, arm) in self.arms.iter().enumerate() {
            pieces.arm(i, &arm.kind);
        }
        let otherwise = pieces.otherwise(self.default.as_ref());
        pieces.whole(biased, otherwise, bodies(self.arms, self.default))
    }
}

/// The parts of the expansion, of which each arm writes some.
struct Pieces {
    path: TokenStream,
    /// What the outer `match` is of, and the names that it gives to that.
    operands: Out,
    names: Out,
    imports: Out,
    /// The `let`s of what belongs to an arm: its end, its slot and its place.
    places: Out,
    /// The places by reference, for the run.
    list: Out,
    /// The slots so far: the arm that has named each first, and the name.
    slots: Vec<(usize, Option<String>)>,
    /// What is imported so far.
    sides: Vec<&'static str>,
}

impl Pieces {
    fn new(path: TokenStream) -> Self {
        let (operands, names, imports, places, list) = (Out::new(), Out::new(), Out::new(), Out::new(), Out::new());
        Self { path, operands, names, imports, places, list, slots: Vec::new(), sides: Vec::new() }
    }

    /// The whole call is shown at an operand, and with it an error about the arguments.
    fn call(&self, name: &str, arguments: Out) -> Out {
        let mut out = Out { tokens: Vec::new(), at: arguments.at };
        out.macros(&located(&self.path, out.at), name).group(Delimiter::Parenthesis, arguments);
        out
    }

    fn arm(&mut self, i: usize, kind: &Kind) {
        self.list.text("&mut").local("place", i).text(",");
        let (Kind::Recv(end) | Kind::Send(end, _) | Kind::SendFrom(end, _)) = kind;
        self.operands.extend(borrowed(end, "&")).text(",");
        self.names.local("end", i).text(",");
        self.end(i, end, matches!(kind, Kind::Recv(_)));
        let mut arguments = Out::at(end);
        let name = match kind {
            Kind::Recv(_) => {
                arguments.local("end", i);
                "Recv::new"
            }
            Kind::Send(_, value) => {
                self.operands.extend(finished(value, "value", i)).text(",");
                self.names.local("value", i).text(",");
                arguments.local("end", i).text(",").extend(local_at(value, "value", i));
                "Send::new"
            }
            Kind::SendFrom(_, slot) => {
                let first = self.slot(i, end, slot);
                arguments.text("&").local("slot", first).text(",").local("end", i);
                "SendFrom::new"
            }
        };
        let call = self.call(name, arguments);
        self.places.text("let mut").local("place", i).text("=").extend(call).text(";");
    }

    /// The end of arm `i`, checked to be one. By a name of one word: what refuses an operand is shown where the whole call has been written, and
    /// that is the operand then.
    fn end(&mut self, i: usize, end: &TokenStream, receives: bool) {
        let (side, local) = if receives { ("receiver", "oxigo_receiver") } else { ("sender", "oxigo_sender") };
        if !self.sides.contains(&side) {
            self.sides.push(side);
            self.imports.text("use").macros(&self.path, &format!("{side} as {local};"));
        }
        let mut checked = Out::at(end);
        checked.text(local).group(Delimiter::Parenthesis, local_at(end, "end", i));
        self.places.text("let").local("end", i).text("=").extend(checked).text(";");
    }

    /// The slot of arm `i`, made unless an arm before has named the same one; the number of the arm that has.
    fn slot(&mut self, i: usize, end: &TokenStream, slot: &TokenStream) -> usize {
        let name = slot_name(slot);
        let known = self.slots.iter().find(|(_, known)| name.is_some() && *known == name);
        if let Some((first, _)) = known {
            return *first;
        }
        self.slots.push((i, name));
        self.operands.extend(borrowed(slot, "&mut")).text(",");
        self.names.local("value", i).text(",");
        let mut arguments = Out::at(end);
        arguments.local("end", i).text(",").extend(local_at(slot, "value", i));
        let call = self.call("Slot::new", arguments);
        self.places.text("let").local("slot", i).text("=").extend(call).text(";");
        i
    }

    /// What happens when no arm is ready.
    fn otherwise(&mut self, default: Option<&Default>) -> Out {
        let mut otherwise = Out::new();
        match default {
            None => otherwise.macros(&self.path, "Otherwise::Wait(::core::option::Option::None)"),
            Some(Default { within: None, .. }) => otherwise.macros(&self.path, "Otherwise::Return"),
            Some(Default { within: Some(duration), .. }) => {
                // The user's own tokens are the argument: an error about its type shows the whole of it.
                let mut argument = Out::new();
                argument.stream(duration.clone());
                let mut call = Out::at(duration);
                call.macros(&located(&self.path, call.at), "limit").group(Delimiter::Parenthesis, argument);
                let call = call.tokens.into_iter().collect();
                self.operands.extend(finished(&call, "within", 0)).text(",");
                self.names.text("within_duration,");
                otherwise.macros(&self.path, "within(within_duration)")
            }
        };
        otherwise
    }

    fn whole(self, biased: bool, otherwise: Out, bodies: Out) -> TokenStream {
        let mut arguments = Out::new();
        arguments.group(Delimiter::Bracket, self.list).text(",").text(if biased { "true" } else { "false" }).text(",");
        arguments.extend(otherwise);
        let mut run = Out::new();
        run.macros(&self.path, "run").group(Delimiter::Parenthesis, arguments);
        let mut inside = self.imports;
        inside.extend(self.places).text("match").extend(run).group(Delimiter::Brace, bodies);
        let mut arm = Out::new();
        arm.group(Delimiter::Parenthesis, self.names).text("=>").group(Delimiter::Brace, inside);
        let mut whole = Out::new();
        whole.text("match").group(Delimiter::Parenthesis, self.operands).group(Delimiter::Brace, arm);
        let mut block = Out::new();
        block.group(Delimiter::Brace, whole);
        block.tokens.into_iter().collect()
    }
}

/// The arms of the inner `match`: before a body runs, all places but the chosen one are dropped.
fn bodies(arms: Vec<Arm>, default: Option<Default>) -> Out {
    // What is sent from a slot stays there: such a place has nothing to drop.
    let owners: Vec<usize> = (0..arms.len()).filter(|i| !matches!(arms[*i].kind, Kind::SendFrom(..))).collect();
    let drop_others = |out: &mut Out, kept: usize| {
        for &i in owners.iter().filter(|i| **i != kept) {
            let mut argument = Out::new();
            argument.local("place", i);
            out.text("::core::mem::drop").group(Delimiter::Parenthesis, argument).text(";");
        }
    };
    let mut bodies = Out::new();
    for (i, arm) in arms.into_iter().enumerate() {
        let mut finish = Out::new();
        drop_others(&mut finish, i);
        finish.local("place", i).text(".finish()");
        let mut inner = Out::new();
        inner.text("let").stream(arm.pattern).text("=").group(Delimiter::Brace, finish).text(";");
        inner.stream(arm.body);
        // Around a body in braces there are some already.
        bodies.text("#[allow(unused_braces)]").number(i).text("=>").group(Delimiter::Brace, inner);
    }
    let mut last = Out::new();
    match default {
        Some(default) => {
            drop_others(&mut last, usize::MAX);
            last.stream(default.body);
        }
        None => {
            last.text("::core::unreachable!()");
        }
    }
    bodies.text("#[allow(unused_braces)] _ =>").group(Delimiter::Brace, last);
    bodies
}

fn local_at(operand: &TokenStream, name: &str, number: usize) -> Out {
    let mut out = Out::at(operand);
    out.local(name, number);
    out
}

/// `{ let name = value; name }`: what the value needs on the way, such as a guard, is dropped before anything is waited for.
fn finished(value: &TokenStream, name: &str, number: usize) -> Out {
    let mut out = Out::new();
    let mut inner = Out::new();
    inner.text("let").local(name, number).text("=").stream(value.clone()).text(";").local(name, number);
    out.group(Delimiter::Brace, inner);
    out
}

fn borrowed(operand: &TokenStream, how: &str) -> Out {
    let mut out = Out::new();
    let mut inner = Out::new();
    inner.stream(operand.clone());
    out.text(how).group(Delimiter::Parenthesis, inner);
    out
}
