//! Maglev rings (Eisenbud et al., NSDI 2016, section 3.4), weighted by the number of turns an endpoint takes.
