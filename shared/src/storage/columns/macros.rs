//! The macro that generates typed code from a list of columns.

/// Implements [`Columns`](super::Columns) for a struct, and a reader: [`ReadColumns`] for a struct
/// that the listed columns fill alone, or a method `from_columns` for one that takes further
/// fields (`with`). A field without a column does not compile.
///
/// [`ReadColumns`]: super::ReadColumns
macro_rules! columns {
    ($name:ident { $($field:ident: $sql_type:ident
        $(as $column:ident)? $(since $since:literal $(else $absent:literal)?)?;)+
    }) => {
        columns! { @write $name { $(
            $field: $sql_type $(as $column)? $(since $since $(else $absent)?)?;
        )+ } }

        impl ReadColumns for $name {
            fn read(columns: &mut Reader<'_>) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: columns.value()?,)+ })
            }

            fn read_all(columns: &mut Reader<'_>) -> Result<Vec<Self>, sqlx::Error> {
                $(let mut $field = columns.array()?;)+
                let lengths = [$($field.len()),+];
                if lengths.iter().any(|length| *length != lengths[0]) {
                    let error = format!("column arrays of different lengths: {lengths:?}");
                    return Err(sqlx::Error::Protocol(error));
                }
                let next = |_| Some(Self { $($field: $field.next()?,)+ });
                Ok((0..lengths[0]).map_while(next).collect())
            }
        }
    };

    ($name:ident with ($($other:ident: $type:ty),+) { $($field:ident: $sql_type:ident
        $(as $column:ident)? $(since $since:literal $(else $absent:literal)?)?;)+
    }) => {
        columns! { @write $name { $(
            $field: $sql_type $(as $column)? $(since $since $(else $absent)?)?;
        )+ } }

        impl $name {
            /// Reads the fields that are columns, then takes the others.
            pub(in crate::storage) fn from_columns(
                columns: &mut Reader<'_>,
                others: impl FnOnce(&mut Reader<'_>) -> Result<($($type,)+), sqlx::Error>,
            ) -> Result<Self, sqlx::Error> {
                $(let $field = columns.value()?;)+
                let ($($other,)+) = others(columns)?;
                Ok(Self { $($field,)+ $($other,)+ })
            }
        }
    };

    (@write $name:ident { $($field:ident: $sql_type:ident
        $(as $column:ident)? $(since $since:literal $(else $absent:literal)?)?;)+
    }) => {
        impl Columns for $name {
            const COLUMNS: &'static [Column] = &[$(
                Column {
                    $(since: $since, $(absent: $absent,)?)?
                    ..Column::new(columns!(@name $field $($column)?), stringify!($sql_type))
                },
            )+];

            fn copy(&self, row: &mut Row<'_>) {
                $(self.$field.copy(row);)+
            }

            fn bind<'q, 'v>(
                query: Insert<'q>,
                rows: impl Iterator<Item = Option<&'v Self>> + Clone,
            ) -> Insert<'q> {
                query $(.bind(array(rows.clone().map(|row| row.map(|row| &row.$field)))))+
            }
        }
    };

    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $column:ident) => { stringify!($column) };
}
pub(super) use columns;
