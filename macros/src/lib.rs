//! The attributes `#[oxigo::main]` and `#[oxigo::test]`; use them through the crate `oxigo`.
//!
//! Both keep the function as it is written and move its body into a closure, or a function in one, that the crate's entry points run. The little that has
//! to be understood of the item (its attributes, its return type, its body) needs no parser of the whole language.

mod select;

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// Runs the function as the main goroutine of the default runtime; the process ends when it returns.
///
/// It may return what any `main` may, such as `Result<(), Box<dyn std::error::Error>>`; an error is printed and the exit status is 1, as with std.
///
/// The body runs on a goroutine from its first line. What has to come before the first goroutine, such as setting a panic hook, belongs in a plain
/// `main` that calls `oxigo::run`.
///
/// `#[oxigo::main(workers = 4)]` sets the number of workers, whatever `OXIGO_WORKERS` says. `crate = "path"` says where oxigo is found, if not at
/// `::oxigo`: under another name, or re-exported by another crate.
///
/// ```ignore
/// // `ignore`: in a crate that depends on `oxigo`.
/// #[oxigo::main]
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let page = oxigo::go(|| oxigo::fs::read_to_string("page.html"));
///     println!("{}", page.join().unwrap()?);
///     Ok(())
/// }
/// ```
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let stub = stub(item.clone());
    expand(arguments, item, Entry::Main).unwrap_or_else(|refusal| {
        let mut tokens = refusal.into_tokens();
        tokens.extend(stub);
        tokens
    })
}

/// Makes the function a test that runs on a runtime of its own.
///
/// It may return what any test may. It fails when the body panics or returns an error, and
///
/// - when all its goroutines have been asleep for a second, with nothing that could wake one: no timer, socket, file or call in `blocking`. It
///   fails with a list of them;
/// - when goroutines that it has started are still alive two seconds after the body has returned.
///
/// A panic in another goroutine is printed, but does not fail the test unless it is passed on: by `join` with `unwrap`, the `wait` of a `WaitGroup`
/// or an `ErrGroup`, or the end of a `scope`.
///
/// Arguments, separated by commas:
///
/// - `workers = N`: the number of workers, from 1 to 1024. Default: 2.
/// - `leaks = "allow"`: goroutines may outlive the body.
/// - `foreign = true`: threads that oxigo does not know may wake goroutines, so that it is no failure when all are asleep. A test that hangs is then
///   not noticed.
/// - `crate = "path"`: where oxigo is found, if not at `::oxigo`: under another name, or re-exported by another crate.
///
/// ```ignore
/// // `ignore`: in a crate that depends on `oxigo`.
/// #[oxigo::test(workers = 4, leaks = "allow")]
/// fn values_arrive() {
///     let (tx, rx) = oxigo::unbuffered();
///     oxigo::go(move || tx.send(1));
///     assert_eq!(rx.recv(), Ok(1));
/// }
/// ```
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments, item, Entry::Test).unwrap_or_else(Refusal::into_tokens)
}

/// The arms of `select!`, behind the path of the crate in parentheses. Called by that macro only.
#[doc(hidden)]
#[proc_macro]
pub fn select_arms(input: TokenStream) -> TokenStream {
    select::expand(input, false).unwrap_or_else(Refusal::into_tokens)
}

/// The arms of `select_biased!`, likewise.
#[doc(hidden)]
#[proc_macro]
pub fn select_biased_arms(input: TokenStream) -> TokenStream {
    select::expand(input, true).unwrap_or_else(Refusal::into_tokens)
}

#[derive(Clone, Copy, PartialEq)]
enum Entry {
    Main,
    Test,
}

/// An error at a place of the user's source.
struct Refusal {
    at: Span,
    text: String,
}

impl Refusal {
    fn new(at: Span, text: impl Into<String>) -> Self {
        Self { at, text: text.into() }
    }

    fn into_tokens(self) -> TokenStream {
        let mut message = Literal::string(&self.text);
        message.set_span(self.at);
        let body = TokenStream::from(TokenTree::from(message));
        let mut tokens = path(&["core", "compile_error"], self.at);
        tokens.push(punct('!', self.at));
        let mut group = Group::new(Delimiter::Brace, body);
        group.set_span(self.at);
        tokens.push(group.into());
        tokens.into_iter().collect()
    }
}

#[derive(Default)]
struct Arguments {
    workers: Option<usize>,
    leaks_allowed: bool,
    foreign: bool,
    /// The path of the crate, if it is given.
    oxigo: Option<Vec<TokenTree>>,
}

fn expand(arguments: TokenStream, item: TokenStream, entry: Entry) -> Result<TokenStream, Refusal> {
    let arguments = parse_arguments(arguments, entry)?;
    let function = Function::parse(item)?;
    let at = Span::mixed_site();

    // || -> Output { body }
    let mut closure: Vec<TokenTree> = vec![joint('|', at), punct('|', at)];
    let mut head = function.head;
    if function.output.is_empty() {
        closure.extend([joint('-', at), punct('>', at)]);
        closure.push(Group::new(Delimiter::Parenthesis, TokenStream::new()).into());
        closure.push(function.body.clone().into());
    } else {
        // What is returned need not be `Send`, as `Box<dyn Error>` is not: it is reported where it is. The body is a function's, since a closure
        // cannot say that it returns `impl Termination`. Of what never returns the report is never reached.
        // || -> ExitCode { fn __body() -> Output { body } #[allow(unreachable_code)] { Termination::report(__body()) } }
        let name = TokenTree::from(Ident::new("__body", at));
        let no_arguments = parenthesized(TokenStream::new());
        let mut inner = vec![Ident::new("fn", at).into(), name.clone(), no_arguments.clone()];
        inner.extend(function.output.iter().cloned());
        inner.push(function.body.clone().into());
        let allowed =
            [Ident::new("allow", at).into(), parenthesized(TokenTree::from(Ident::new("unreachable_code", at)).into())];
        inner.push(punct('#', at));
        inner.push(Group::new(Delimiter::Bracket, allowed.into_iter().collect()).into());
        let mut report = path(&["std", "process", "Termination", "report"], at);
        report.push(parenthesized([name, no_arguments].into_iter().collect()));
        inner.push(Group::new(Delimiter::Brace, report.into_iter().collect()).into());
        let mut exit_code = vec![joint('-', at), punct('>', at)];
        exit_code.extend(path(&["std", "process", "ExitCode"], at));
        closure.extend(exit_code.iter().cloned());
        closure.push(Group::new(Delimiter::Brace, inner.into_iter().collect()).into());
        head.truncate(head.len() - function.output.len());
        head.extend(exit_code);
    }

    // oxigo::__private::entry(arguments, closure)
    let mut values: Vec<TokenTree> = Vec::new();
    match arguments.workers {
        Some(workers) => {
            values.extend(path(&["core", "option", "Option", "Some"], at));
            values.push(parenthesized(TokenTree::from(Literal::usize_suffixed(workers)).into()));
        }
        None => values.extend(path(&["core", "option", "Option", "None"], at)),
    }
    values.push(punct(',', at));
    if entry == Entry::Test {
        for flag in [arguments.leaks_allowed, arguments.foreign] {
            values.push(Ident::new(if flag { "true" } else { "false" }, at).into());
            values.push(punct(',', at));
        }
    }
    values.extend(closure);
    let mut call = arguments.oxigo.unwrap_or_else(|| path(&["oxigo"], at));
    call.extend(path(&["__private", if entry == Entry::Main { "main" } else { "test" }], at));
    call.push(parenthesized(values.into_iter().collect()));

    let mut tokens: Vec<TokenTree> = Vec::new();
    if entry == Entry::Test {
        tokens.push(punct('#', at));
        let name = path(&["core", "prelude", "v1", "test"], at);
        tokens.push(Group::new(Delimiter::Bracket, name.into_iter().collect()).into());
    }
    tokens.extend(head);
    let mut body = Group::new(Delimiter::Brace, call.into_iter().collect());
    body.set_span(function.body.span());
    tokens.push(body.into());
    Ok(tokens.into_iter().collect())
}

/// An empty function with the name of the one that is refused, lest the compiler goes on to miss `main`.
fn stub(item: TokenStream) -> TokenStream {
    let mut tokens = item.into_iter().skip_while(|token| !is_word(token, "fn"));
    let (Some(keyword), Some(TokenTree::Ident(name))) = (tokens.next(), tokens.next()) else {
        return TokenStream::new();
    };
    let body = Group::new(Delimiter::Brace, TokenStream::new());
    [keyword, name.into(), parenthesized(TokenStream::new()), body.into()].into_iter().collect()
}

/// A function without parameters, cut into the pieces that matter.
struct Function {
    /// Attributes, visibility, name, parameters, return type.
    head: Vec<TokenTree>,
    /// `-> Type`, or nothing.
    output: Vec<TokenTree>,
    body: Group,
}

impl Function {
    fn parse(item: TokenStream) -> Result<Self, Refusal> {
        let mut tokens: Vec<TokenTree> = item.into_iter().collect();
        let Some(TokenTree::Group(body)) = tokens.pop() else {
            return Err(Refusal::new(Span::call_site(), "expected a function with a body"));
        };
        if body.delimiter() != Delimiter::Brace {
            return Err(Refusal::new(body.span(), "expected a function with a body"));
        }
        let Some(at) = tokens.iter().position(|token| is_word(token, "fn")) else {
            return Err(Refusal::new(body.span(), "expected a function"));
        };
        if let Some(token) = tokens[..at].iter().find(|token| is_word(token, "async")) {
            let text = "a goroutine needs no async: write a plain `fn` and call what blocks";
            return Err(Refusal::new(token.span(), text));
        }
        match tokens.get(at + 2) {
            Some(TokenTree::Group(parameters)) if parameters.delimiter() == Delimiter::Parenthesis => {
                if !parameters.stream().is_empty() {
                    return Err(Refusal::new(parameters.span(), "this function takes no parameters"));
                }
            }
            Some(other) => return Err(Refusal::new(other.span(), "this function takes no type parameters")),
            None => return Err(Refusal::new(body.span(), "expected a function")),
        }
        let output = tokens[at + 3..].to_vec();
        Ok(Self { head: tokens, output, body })
    }
}

fn parse_arguments(arguments: TokenStream, entry: Entry) -> Result<Arguments, Refusal> {
    let mut parsed = Arguments::default();
    let mut given = Vec::new();
    let tokens: Vec<TokenTree> = arguments.into_iter().collect();
    for argument in tokens.split(|token| matches!(token, TokenTree::Punct(p) if p.as_char() == ',')) {
        let Some(first) = argument.first() else { continue };
        let known = match entry {
            Entry::Main => "`workers = N` or `crate = \"path\"`",
            Entry::Test => "`workers = N`, `leaks = \"allow\"`, `foreign = true` or `crate = \"path\"`",
        };
        let wrong = |at: Span| Refusal::new(at, format!("expected {known}"));
        let [TokenTree::Ident(name), TokenTree::Punct(equals), value] = argument else {
            return Err(wrong(first.span()));
        };
        if equals.as_char() != '=' {
            return Err(wrong(equals.span()));
        }
        if given.contains(&name.to_string()) {
            return Err(Refusal::new(name.span(), format!("`{name}` is given twice")));
        }
        given.push(name.to_string());
        let text = value.to_string();
        match (name.to_string().as_str(), entry) {
            ("workers", _) => {
                let number = text.replace('_', "").parse().ok().filter(|n| (1..=1024).contains(n));
                let text = "expected a number of workers from 1 to 1024";
                parsed.workers = Some(number.ok_or_else(|| Refusal::new(value.span(), text))?);
            }
            ("crate", _) => {
                let path = crate_path(value).ok_or_else(|| {
                    Refusal::new(value.span(), "expected a path in quotes, such as \"my_crate::oxigo\"")
                });
                parsed.oxigo = Some(path?);
            }
            ("leaks", Entry::Test) if text == "\"allow\"" => parsed.leaks_allowed = true,
            ("leaks", Entry::Test) => return Err(Refusal::new(value.span(), "expected \"allow\"")),
            ("foreign", Entry::Test) if text == "true" || text == "false" => parsed.foreign = text == "true",
            ("foreign", Entry::Test) => return Err(Refusal::new(value.span(), "expected true or false")),
            _ => return Err(wrong(name.span())),
        }
    }
    Ok(parsed)
}

/// The path in a literal, as if it stood in its place.
fn crate_path(literal: &TokenTree) -> Option<Vec<TokenTree>> {
    let text = literal.to_string();
    let text = text.strip_prefix('"')?.strip_suffix('"')?;
    let names = text.strip_prefix("::").unwrap_or(text).split("::");
    // Words alone: neither generics nor a macro.
    let is_name = |name: &str| {
        let name = name.strip_prefix("r#").unwrap_or(name);
        name.starts_with(|first: char| first.is_alphabetic() || first == '_')
            && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    if !names.clone().all(is_name) {
        return None;
    }
    let mut tokens: Vec<TokenTree> = text.parse::<TokenStream>().ok()?.into_iter().collect();
    tokens.iter_mut().for_each(|token| token.set_span(literal.span()));
    Some(tokens)
}

fn is_word(token: &TokenTree, text: &str) -> bool {
    matches!(token, TokenTree::Ident(word) if word.to_string() == text)
}

fn punct(character: char, at: Span) -> TokenTree {
    let mut punct = Punct::new(character, Spacing::Alone);
    punct.set_span(at);
    punct.into()
}

fn joint(character: char, at: Span) -> TokenTree {
    let mut punct = Punct::new(character, Spacing::Joint);
    punct.set_span(at);
    punct.into()
}

/// `::a::b::c`
fn path(segments: &[&str], at: Span) -> Vec<TokenTree> {
    let segment = |name: &&str| [joint(':', at), punct(':', at), Ident::new(name, at).into()];
    segments.iter().flat_map(segment).collect()
}

fn parenthesized(inner: TokenStream) -> TokenTree {
    Group::new(Delimiter::Parenthesis, inner).into()
}
