//! How a request is made, as far as an instance's rate-limit rules tell requests apart: by method.

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpMethod {
    /// GET: looks and reads.
    Get,
    /// POST: makes a ticket.
    Post,
    /// PATCH: changes one.
    Patch,
}

impl HttpMethod {
    /// All of them.
    pub const ALL: [HttpMethod; 3] = [HttpMethod::Get, HttpMethod::Post, HttpMethod::Patch];

    /// As it stands in HTTP.
    pub fn name(self) -> &'static str {
        match self {
            HttpMethod::Get => "GET",
            HttpMethod::Post => "POST",
            HttpMethod::Patch => "PATCH",
        }
    }
}

/// A set of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HttpMethods(u8);

impl HttpMethods {
    /// None.
    pub const NONE: HttpMethods = HttpMethods(0);

    /// These and `method`.
    pub fn with(self, method: HttpMethod) -> Self {
        Self(self.0 | 1 << method as u8)
    }

    /// True where `method` is among them.
    pub fn contains(self, method: HttpMethod) -> bool {
        self.0 & (1 << method as u8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = HttpMethods::NONE.with(HttpMethod::Post).with(HttpMethod::Get);
        assert_eq!(HttpMethod::ALL.map(|method| set.contains(method)), [true, true, false]);
    }
}
