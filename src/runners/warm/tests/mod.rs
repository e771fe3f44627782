//! Tests of the protocol with data that other languages use too.

mod vectors;
