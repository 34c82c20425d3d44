//! Small parts by themselves.

mod checks {
    use softgpu::check::*;

    #[test]
    fn checks_are_read_by_name() {
        assert_eq!(Checks::parse("all"), Ok(Checks::ALL));
        assert_eq!(Checks::parse(""), Ok(Checks::ALL));
        assert_eq!(Checks::parse("none"), Ok(Checks::NONE));
        let one = Checks::parse("bounds").unwrap();
        assert!(one.has(Check::Bounds) && !one.has(Check::Alignment));
        let but = Checks::parse("-bounds").unwrap();
        assert!(!but.has(Check::Bounds) && but.has(Check::Limits));
        assert!(Checks::parse("bound").is_err());
        assert!(CHECKS.iter().all(|(c, _)| Checks::ALL.has(*c)));
    }
}

mod warps {
    use softgpu::exec::warp::*;

    #[test]
    fn paths_split_and_meet() {
        let mut w = Warp::new(64, !0);
        let a = w.split(0, (5, 0xff), (9, !0xff), 20);
        assert_eq!((w.nodes[a].mask, w.nodes[a].pc), (0xff, 5));
        // An inner split that meets at the same place adds a brother, not a level.
        let b = w.split(a, (6, 0xf), (7, 0xf0), 20);
        assert_eq!(b, a);
        assert_eq!(w.nodes[0].children, 3);
        assert!(w.retire(b));
        assert_ne!(w.current, b);
        let c = w.current;
        assert!(w.retire(c));
        let d = w.current;
        // The lanes of the last path have ended: they do not come back.
        w.nodes[d].mask = 0;
        assert!(w.retire(d));
        assert_eq!(w.current, 0);
        assert_eq!(w.nodes[0].pc, 20);
        assert_eq!(w.nodes[0].mask.count_ones(), if c == d { 0 } else { w.nodes[0].mask.count_ones() });
        assert!(w.nodes[0].mask & 0xf == 0xf);
    }
}
