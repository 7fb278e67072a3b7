//! HTTP methods, as far as an instance's rate limit rules distinguish requests.

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpMethod {
    /// Reads and look-ups.
    Get,
    /// Creates a ticket.
    Post,
    /// Updates a ticket.
    Patch,
}

impl HttpMethod {
    /// All methods.
    pub const ALL: [HttpMethod; 3] = [HttpMethod::Get, HttpMethod::Post, HttpMethod::Patch];

    /// Returns the method's name in HTTP.
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
pub struct HttpMethodSet(u8);

impl HttpMethodSet {
    /// The empty set.
    pub const NONE: HttpMethodSet = HttpMethodSet(0);

    /// Returns the set with `method` added.
    pub fn with(self, method: HttpMethod) -> Self {
        Self(self.0 | 1 << method as u8)
    }

    /// Whether the set contains `method`.
    pub fn contains(self, method: HttpMethod) -> bool {
        self.0 & (1 << method as u8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_contains_the_methods_added_to_it() {
        let set = HttpMethodSet::NONE.with(HttpMethod::Post).with(HttpMethod::Get);
        assert_eq!(HttpMethod::ALL.map(|method| set.contains(method)), [true, true, false]);
    }
}
