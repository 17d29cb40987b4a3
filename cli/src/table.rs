//! Columns of text as kubectl lays them out: padded to the widest cell, three spaces apart.

const GAP: &str = "   ";

/// Lays out rows below their header. A row may have fewer cells than the header.
pub fn layout(header: &[&str], rows: &[Vec<String>], with_header: bool) -> String {
    let mut widths: Vec<usize> =
        header.iter().map(|h| if with_header { h.chars().count() } else { 0 }).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    if with_header {
        line(&mut text, &widths, header.iter().copied());
    }
    for row in rows {
        line(&mut text, &widths, row.iter().map(String::as_str));
    }
    text
}

fn line<'a>(text: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) {
    let mut row = String::new();
    for (cell, width) in cells.zip(widths) {
        if !row.is_empty() {
            row.push_str(GAP);
        }
        row.push_str(&format!("{cell:<width$}"));
    }
    text.push_str(row.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::layout;

    #[test]
    fn pads_to_the_widest_cell() {
        let rows =
            vec![vec!["web-1".into(), "1/1".into()], vec!["longer-name".into(), "0/1".into()]];
        let text = layout(&["NAME", "READY"], &rows, true);
        assert_eq!(text, "NAME          READY\nweb-1         1/1\nlonger-name   0/1\n");
    }
}
