//! Side by side: the product and keepalived, in the same lab, with the same client, alternating in one session.
