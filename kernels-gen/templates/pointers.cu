struct Pointers {
{%- for pointer in pointers %}
  {{ pointer }};
{%- endfor %}
};
